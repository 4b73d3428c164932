"use client";

import { useQuery } from "@tanstack/react-query";
import { type ClusterStatus, ForbiddenError } from "farlabs";
import { useState } from "react";
import { Badge } from "@/components/ui/Badge";
import { Stat } from "@/components/ui/Card";
import { NeedsWallet } from "@/components/ui/NeedsWallet";
import { Notice } from "@/components/ui/Notice";
import { PageHeader } from "@/components/ui/PageHeader";
import { Query } from "@/components/ui/Query";
import { Loading } from "@/components/ui/Skeleton";
import { Tabs } from "@/components/ui/Tabs";
import { count } from "@/lib/format";
import { useSession } from "@/lib/session";
import { Accounts } from "./Accounts";
import { Gateways } from "./Gateways";
import { Nodes } from "./Nodes";
import { AGAIN_MS } from "./operating";
import { Prices } from "./Prices";
import { Queues } from "./Queues";
import { Settlement } from "./Settlement";

/** What runs, what waits, what disagrees, and what an operator may change. Asked again by itself. */
export function Operator() {
  return (
    <>
      <PageHeader title="Operator">What this marketplace does at the moment, and what you may change while it runs.</PageHeader>
      <NeedsWallet what="the state of this marketplace">
        <ForOperators />
      </NeedsWallet>
    </>
  );
}

function ForOperators() {
  const { client, wallet } = useSession();
  const status = useQuery({
    queryKey: ["operator", wallet, "status"],
    queryFn: ({ signal }) => client.clusterStatus({ signal }),
    // who is no operator does not become one while the page is open
    refetchInterval: ({ state }) => (state.error instanceof ForbiddenError ? false : AGAIN_MS),
  });
  if (status.error instanceof ForbiddenError) return <Refused />;
  return (
    <Query what="The state of the marketplace" query={status} loading={<Loading what="the state of the marketplace" lines={6} />}>
      {(found) => <Everything status={found} />}
    </Query>
  );
}

function Refused() {
  const { wallet } = useSession();
  return (
    <Notice kind="info" title="This page is for operators">
      <p>
        You are signed in as <span className="font-mono break-all">{wallet}</span>, and that wallet is no operator here. Whoever
        runs this gateway names its operators in <code>FAR_OPERATORS</code>, and it reads that when it starts. If you are one,
        connect that wallet.
      </p>
    </Notice>
  );
}

const PARTS = [
  { name: "now", label: "Now" },
  { name: "nodes", label: "Nodes" },
  { name: "settlement", label: "Settlement" },
  { name: "prices", label: "Prices" },
  { name: "accounts", label: "Tiers and pools" },
] as const;

type Part = (typeof PARTS)[number]["name"];

function Everything({ status }: { status: ClusterStatus }) {
  const [part, setPart] = useState<Part>("now");
  return (
    <div className="flex flex-col gap-6">
      <Glance status={status} />
      <Tabs label="Parts of the marketplace" tabs={PARTS} value={part} onChange={setPart}>
        {part === "now" && (
          <div className="flex flex-col gap-6">
            <Queues models={status.models} />
            <Gateways status={status} />
          </div>
        )}
        {part === "nodes" && <Nodes status={status} />}
        {part === "settlement" && <Settlement status={status} />}
        {part === "prices" && <Prices />}
        {part === "accounts" && <Accounts />}
      </Tabs>
    </div>
  );
}

function Glance({ status }: { status: ClusterStatus }) {
  const { models, nodes, sessions, settlement } = status;
  const open = sessions.reduce((sum, { pending, active }) => sum + pending + active, 0);
  const waiting = models.reduce((sum, { queue }) => sum + (queue?.waiting ?? 0), 0);
  const isReady = status.reasons.length === 0;
  const toSettle = settlement === null ? null : settlement.pending + settlement.sent;
  return (
    <section aria-label="At a glance" className="flex flex-col gap-4">
      {!isReady && (
        <Notice kind="warn" title="Requests cannot be served at the moment">
          <ul className="list-disc pl-5">
            {status.reasons.map((reason) => (
              <li key={reason}>{reason}</li>
            ))}
          </ul>
        </Notice>
      )}
      <dl aria-live="polite" aria-atomic="false" className="grid grid-cols-2 gap-3 sm:gap-4 lg:grid-cols-4">
        <Stat name="State" value={<Badge kind={isReady ? "good" : "bad"}>{status.status}</Badge>} />
        <Stat name="Nodes" value={count(new Set(nodes.map(({ node_id: id }) => id)).size)} hint={`for ${models.length === 1 ? "1 model" : `${models.length} models`}`} />
        <Stat name="Requests" value={count(open)} hint={`under way at all gateways; ${count(waiting)} waiting at this one`} />
        <Stat name="Transactions" value={count(toSettle)} hint={settlement === null ? "the database does not answer" : "to be sent, or in no block yet"} />
      </dl>
    </section>
  );
}
