"use client";

import type { Balance } from "farlabs";
import { type ReactNode, useState } from "react";
import { useConnection, useSwitchChain } from "wagmi";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { NeedsSender } from "@/components/ui/NeedsSender";
import { Notice } from "@/components/ui/Notice";
import { Tabs } from "@/components/ui/Tabs";
import { explain } from "@/lib/explain";
import { far } from "@/lib/format";
import { chainOf } from "@/lib/wallet";
import { Channels } from "./Channels";
import { DepositForm } from "./DepositForm";
import { Deposits } from "./Deposits";
import { SpendingLimit } from "./SpendingLimit";
import { Transfer } from "./Transfer";
import { type Escrow, useHoldings } from "./useHoldings";
import { Withdraw } from "./Withdraw";

/** Money in and out, by the way in which this marketplace is paid. */
export function Funds({ balance }: { balance: Balance }) {
  const { escrow_address: escrow, token_address: token, deposit_address: address, chain_id: chainId } = balance;
  if (escrow !== null && token !== null) {
    return <InEscrow balance={balance} place={{ chainId, token: token as `0x${string}`, escrow: escrow as `0x${string}` }} />;
  }
  if (address !== null) return <ByTransfer balance={balance} address={address} />;
  return (
    <Card title="Money">
      <p className="max-w-prose text-sm text-soft">
        This marketplace takes no payments: its members share, and its operator gives out balances. Ask the operator for one.
      </p>
    </Card>
  );
}

const TABS = [
  { name: "deposit", label: "Deposit" },
  { name: "withdraw", label: "Withdraw" },
  { name: "limit", label: "Spending limit" },
  { name: "channels", label: "Payment channels" },
  { name: "history", label: "History" },
] as const;

type Shown = (typeof TABS)[number]["name"];

function InEscrow({ balance, place }: { balance: Balance; place: Escrow }) {
  const [shown, setShown] = useState<Shown>("deposit");
  const { data: holdings } = useHoldings(place);
  return (
    <Card title="Money">
      {holdings !== undefined && holdings.allowed < holdings.deposit && shown !== "limit" && (
        <div className="mb-4">
          <Notice kind="info" title={`Requests may be charged ${far(holdings.allowed)} of your deposit of ${far(holdings.deposit)}`}>
            <p>What is above the limit cannot be spent from the balance or with an API key.</p>
            <Button kind="quiet" className="mt-3" onClick={() => setShown("limit")}>Change the limit</Button>
          </Notice>
        </div>
      )}
      <Tabs label="Money" tabs={TABS} value={shown} onChange={setShown}>
        {/* what is hidden stays as it is, as a transaction may be on its way there */}
        <Panel isShown={shown === "deposit"}>
          <NeedsSender to="pay in">
            <DepositForm place={place} holdings={holdings} />
          </NeedsSender>
        </Panel>
        <Panel isShown={shown === "withdraw"}>
          <NeedsSender to="take it out">
            <ElsewhereNotice chainId={place.chainId} />
            <Withdraw balance={balance} place={place} holdings={holdings} />
          </NeedsSender>
        </Panel>
        <Panel isShown={shown === "limit"}>
          <NeedsSender to="change the limit">
            <ElsewhereNotice chainId={place.chainId} />
            <SpendingLimit place={place} holdings={holdings} />
          </NeedsSender>
        </Panel>
        <Panel isShown={shown === "channels"}>
          <Channels place={place} holdings={holdings} />
        </Panel>
        <Panel isShown={shown === "history"}>
          <Deposits isAsked={shown === "history"} />
        </Panel>
      </Tabs>
    </Card>
  );
}

function Panel({ isShown, children }: { isShown: boolean; children: ReactNode }) {
  return <div hidden={!isShown} className={isShown ? "flex flex-col gap-4" : undefined}>{children}</div>;
}

const WAYS = [
  { name: "deposit", label: "Deposit" },
  { name: "history", label: "History" },
] as const;

function ByTransfer({ balance, address }: { balance: Balance; address: string }) {
  const [shown, setShown] = useState<(typeof WAYS)[number]["name"]>("deposit");
  return (
    <Card title="Money">
      <Tabs label="Money" tabs={WAYS} value={shown} onChange={setShown}>
        <Panel isShown={shown === "deposit"}><Transfer balance={balance} address={address} /></Panel>
        <Panel isShown={shown === "history"}><Deposits isAsked={shown === "history"} /></Panel>
      </Tabs>
    </Card>
  );
}

/** The wallet is on another chain, so that nobody here can read this one. */
function ElsewhereNotice({ chainId }: { chainId: number }) {
  const { chainId: at } = useConnection();
  const { mutateAsync: switchChain } = useSwitchChain();
  const [problem, setProblem] = useState<string>();
  if (at === undefined || at === chainId) return null;
  const { name } = chainOf({ chain_id: chainId });
  return (
    <Notice kind="warn" title="Your wallet is on another chain">
      <p>What lies on {name} can be read when your wallet is there.</p>
      <Button
        kind="quiet"
        className="mt-3"
        onClick={async () => {
          setProblem(undefined);
          try {
            await switchChain({ chainId });
          } catch (error) {
            setProblem(explain(error));
          }
        }}
      >
        Change to {name}
      </Button>
      {problem !== undefined && <p role="alert" className="mt-2 text-bad">{problem}</p>}
    </Notice>
  );
}
