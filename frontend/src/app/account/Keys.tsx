"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { ApiKey } from "farlabs";
import { useState } from "react";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { ConfirmDialog } from "@/components/ui/ConfirmDialog";
import { Empty } from "@/components/ui/Empty";
import { Query } from "@/components/ui/Query";
import { type Column, Table } from "@/components/ui/Table";
import { when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { useNow } from "@/lib/useNow";
import { limitsOf, mayOf, sorted, stateOf } from "./keys";
import { NewKeyDialog } from "./NewKeyDialog";

const AGAIN_MS = 30_000;

/** Who may spend from this account without its wallet. */
export function Keys() {
  const { client, wallet } = useSession();
  const queries = useQueryClient();
  const [isMaking, setMaking] = useState(false);
  const [revoked, setRevoked] = useState<ApiKey>();
  const query = useQuery({
    queryKey: ["api-keys", wallet],
    queryFn: ({ signal }) => client.apiKeys({ signal }),
    refetchInterval: AGAIN_MS,
  });
  const refresh = () => queries.invalidateQueries({ queryKey: ["api-keys"] });
  const now = useNow(true, AGAIN_MS);
  const columns: readonly Column<ApiKey>[] = [
    { name: "Name", cell: ({ name }) => <span className="font-medium break-words">{name}</span> },
    { name: "Key", cell: ({ prefix }) => <span className="font-mono text-xs">{prefix}…</span> },
    { name: "May", cell: ({ scopes }) => mayOf(scopes) },
    { name: "Limits", cell: ({ limits }) => limitsOf(limits) },
    { name: "Last used", cell: ({ last_used_at: at }) => (at === null ? "never" : <time dateTime={at}>{when(at)}</time>) },
    { name: "Counts until", cell: (key) => <Until apiKey={key} now={now} /> },
    {
      name: "Actions",
      cell: (key) =>
        stateOf(key, now) === "active" ? (
          <Button kind="danger" onClick={() => setRevoked(key)}>Revoke<span className="sr-only"> {key.name}</span></Button>
        ) : (
          "–"
        ),
    },
  ];
  return (
    <Card title="API keys" aside={<Button onClick={() => setMaking(true)}>Create a key</Button>}>
      <p className="mb-3 max-w-prose text-sm text-soft">
        For programs: whoever has a key asks in your name, and your balance pays. Keys that were revoked stay in this list for
        thirty days.
      </p>
      <Query what="Your API keys" query={query}>
        {(keys) => (
          <Table
            caption="Your API keys"
            columns={columns}
            rows={sorted(keys, now)}
            keyOf={({ id }) => id}
            empty={<Empty title="There is no API key yet">Create one, and give it to a program in the place of your wallet.</Empty>}
          />
        )}
      </Query>
      <NewKeyDialog isOpen={isMaking} onClose={() => setMaking(false)} onMade={refresh} />
      <ConfirmDialog
        title={`Revoke ${revoked?.name ?? "the key"}?`}
        act="Revoke"
        isOpen={revoked !== undefined}
        onClose={() => setRevoked(undefined)}
        onConfirm={async () => {
          if (revoked !== undefined) await client.revokeApiKey(revoked.id);
          await refresh();
        }}
      >
        <p>Programs that use it are refused from now on. It cannot be taken back; a new key takes its place.</p>
      </ConfirmDialog>
    </Card>
  );
}

function Until({ apiKey, now }: { apiKey: ApiKey; now: number }) {
  const { revoked_at: revokedAt, expires_at: expiresAt } = apiKey;
  switch (stateOf(apiKey, now)) {
    case "revoked":
      return <span title={when(revokedAt)}><Badge>revoked</Badge></span>;
    case "expired":
      return <span title={when(expiresAt)}><Badge>expired</Badge></span>;
    case "active":
      return expiresAt === null ? "it is revoked" : <time dateTime={expiresAt}>{when(expiresAt)}</time>;
  }
}
