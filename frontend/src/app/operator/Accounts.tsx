"use client";

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import type { AccountTier, PrivatePool } from "farlabs";
import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { ConfirmDialog } from "@/components/ui/ConfirmDialog";
import { Empty } from "@/components/ui/Empty";
import { Field, Select, TextArea } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { Query } from "@/components/ui/Query";
import { type Column, Table } from "@/components/ui/Table";
import { readAddress } from "@/lib/address";
import { explain } from "@/lib/explain";
import { count, short, when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { AGAIN_MS, endOf, readMembers } from "./operating";

type TierName = AccountTier["tier"];

const TIERS: readonly TierName[] = ["standard", "premium", "enterprise"];

/** Who is served otherwise than everybody, and on which nodes. */
export function Accounts() {
  return (
    <div className="flex flex-col gap-6">
      <Tiers />
      <Pools />
    </div>
  );
}

function Tiers() {
  const { client, wallet } = useSession();
  const queries = useQueryClient();
  const [leaving, setLeaving] = useState<string>();
  const accounts = useQuery({ queryKey: ["operator", wallet, "tiers"], queryFn: ({ signal }) => client.accountTiers({ signal }), refetchInterval: AGAIN_MS });
  const columns: readonly Column<AccountTier>[] = [
    { name: "Account", cell: ({ wallet_address: account }) => <span title={account} className="font-mono text-xs">{short(account, 10, 8)}</span> },
    { name: "Tier", cell: ({ tier }) => tier },
    { name: "Until", cell: ({ until }) => (until === null ? "it is changed" : <time dateTime={until}>{when(until)}</time>) },
    {
      name: "Change",
      cell: ({ wallet_address: account }) => (
        <Button kind="quiet" onClick={() => setLeaving(account)}>
          Back to standard<span className="sr-only"> for {account}</span>
        </Button>
      ),
    },
  ];
  return (
    <Card title="Tiers">
      <p className="mb-4 max-w-prose text-sm text-soft">
        Everybody is in standard but these. Requests under way stay in the tier they began in; other gateways know of a change
        after a moment.
      </p>
      <Query what="The accounts in other tiers" query={accounts}>
        {(found) => (
          <Table caption="Accounts in another tier than standard" columns={columns} rows={found} keyOf={({ wallet_address: account }) => account} empty={<Empty title="Every account is in standard" />} />
        )}
      </Query>
      <NewTier />
      <ConfirmDialog
        title="Back to standard"
        act="Put it back"
        isOpen={leaving !== undefined}
        onClose={() => setLeaving(undefined)}
        onConfirm={async () => {
          if (leaving === undefined) return;
          await client.setWalletTier(leaving, { tier: "standard" });
          await queries.invalidateQueries({ queryKey: ["operator"] });
        }}
      >
        <p><span className="font-mono break-all">{leaving}</span> is served as everybody is from now on.</p>
      </ConfirmDialog>
    </Card>
  );
}

function NewTier() {
  const { client } = useSession();
  const queries = useQueryClient();
  const [account, setAccount] = useState("");
  const [tier, setTier] = useState<TierName>("premium");
  const [day, setDay] = useState("");
  const { address, problem } = readAddress(account);
  const { mutate, data, error, isPending } = useMutation({
    mutationFn: (whose: string) => client.setWalletTier(whose, { tier, until: tier === "standard" ? undefined : endOf(day) }),
    onSuccess: async () => {
      setAccount("");
      await queries.invalidateQueries({ queryKey: ["operator"] });
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (address !== undefined) mutate(address);
  }
  return (
    <form onSubmit={submit} aria-labelledby="new-tier" className="mt-6 flex flex-col gap-4 border-t border-line pt-5">
      <h3 id="new-tier" className="font-medium">Put an account into a tier</h3>
      <div className="grid gap-4 sm:grid-cols-[2fr_1fr_1fr]">
        <Field label="Wallet" required autoComplete="off" spellCheck={false} placeholder="0x…" className="font-mono" value={account} onChange={(event) => setAccount(event.target.value)} problem={problem} />
        <Select label="Tier" value={tier} onChange={(event) => setTier(TIERS.find((one) => one === event.target.value) ?? "premium")}>
          {TIERS.map((one) => (
            <option key={one} value={one}>{one}</option>
          ))}
        </Select>
        <Field label="Last day" type="date" hint="In UTC; empty: for good" value={day} onChange={(event) => setDay(event.target.value)} disabled={tier === "standard"} />
      </div>
      <Button type="submit" className="w-fit" disabled={isPending || address === undefined}>Put it into {tier}</Button>
      {error !== null && <Notice kind="bad" title="The tier was not changed">{explain(error)}</Notice>}
      {error === null && data !== undefined && (
        <Notice kind="good" title={`${short(data.wallet_address)} is in ${data.tier}`}>{data.until === null ? "For good." : `Until ${when(data.until)}.`}</Notice>
      )}
    </form>
  );
}

function Pools() {
  const { client } = useSession();
  const [account, setAccount] = useState("");
  const { address, problem } = readAddress(account);
  const { mutate, data, error, isPending } = useMutation({ mutationFn: (whose: string) => client.privatePool(whose) });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (address !== undefined) mutate(address);
  }
  return (
    <Card title="Private pools">
      <p className="mb-4 max-w-prose text-sm text-soft">
        Accounts in a tier with private nodes are served by the nodes of their pool alone, and by nobody while it is empty. A
        wallet stands for those of its nodes that are registered or claimed.
      </p>
      <form onSubmit={submit} className="flex flex-wrap items-end gap-3">
        <div className="w-full max-w-md">
          <Field label="Wallet of the account" required autoComplete="off" spellCheck={false} placeholder="0x…" className="font-mono" value={account} onChange={(event) => setAccount(event.target.value)} problem={problem} />
        </div>
        <Button type="submit" kind="quiet" disabled={isPending || address === undefined}>Show its pool</Button>
      </form>
      {error !== null && <div className="mt-4"><Notice kind="bad" title="The pool could not be loaded">{explain(error)}</Notice></div>}
      {data !== undefined && <Pool key={data.wallet_address} pool={data} />}
    </Card>
  );
}

function Pool({ pool }: { pool: PrivatePool }) {
  const { client } = useSession();
  const [text, setText] = useState(pool.members.join("\n"));
  const { value: members, problem } = readMembers(text);
  const { mutate, data, error, isPending } = useMutation({
    mutationFn: (wanted: readonly string[]) => client.setPrivatePool(pool.wallet_address, wanted),
    onSuccess: (kept) => setText(kept.members.join("\n")),
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (members !== undefined) mutate(members);
  }
  return (
    <form onSubmit={submit} aria-label={`Pool of ${pool.wallet_address}`} className="mt-6 flex flex-col gap-4 border-t border-line pt-5">
      <TextArea
        label={`Nodes of ${short(pool.wallet_address, 10, 8)}`}
        hint="Ids of nodes, or wallets, one to a line."
        rows={4}
        spellCheck={false}
        className="font-mono"
        value={text}
        onChange={(event) => setText(event.target.value)}
        problem={problem}
      />
      <Button type="submit" className="w-fit" disabled={isPending || members === undefined}>Save the pool</Button>
      {error !== null && <Notice kind="bad" title="The pool was not changed">{explain(error)}</Notice>}
      {error === null && data !== undefined && <Notice kind="good" title={data.members.length === 0 ? "The pool is empty" : `The pool has ${count(data.members.length)} ${data.members.length === 1 ? "member" : "members"}`} />}
    </form>
  );
}
