"use client";

import { useInfiniteQuery } from "@tanstack/react-query";
import type { BatchEntry, ClusterStatus, SettlementOverview } from "farlabs";
import type { ReactNode } from "react";
import { Amount } from "@/components/ui/Amount";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Empty } from "@/components/ui/Empty";
import { ErrorState } from "@/components/ui/ErrorState";
import { Notice } from "@/components/ui/Notice";
import { Loading } from "@/components/ui/Skeleton";
import { type Column, Table } from "@/components/ui/Table";
import { TransactionLink } from "@/components/ui/TransactionSteps";
import { count, far, when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { AGAIN_MS, ago, kindOf, span, stateOf, worriesOf } from "./operating";

const PAGE = 20;

/** What waits to be paid, what was, and whether the books agree with the chain. */
export function Settlement({ status }: { status: ClusterStatus }) {
  const { client, wallet } = useSession();
  const { data, error, isPending, refetch, hasNextPage, fetchNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["operator", wallet, "settlement"],
    queryFn: ({ pageParam, signal }) => client.settlement({ limit: PAGE, before: pageParam, signal }),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: ({ next_before: next }) => next ?? undefined,
    refetchInterval: AGAIN_MS,
  });
  const newest = data?.pages[0];
  if (newest === undefined) {
    return isPending ? <Loading what="the settlement" lines={6} /> : <ErrorState what="The settlement" error={error} onRetry={() => void refetch()} />;
  }
  return (
    <div className="flex flex-col gap-6">
      <Outbox status={status} waiting={newest.waiting} />
      <Reconciliation found={newest.reconciliation} at={status.at} />
      <Card title="Batches">
        <Table
          caption="What was settled together, the newest first"
          columns={COLUMNS}
          rows={data?.pages.flatMap(({ batches }) => batches) ?? []}
          keyOf={({ number }) => String(number)}
          empty={<Empty title="Nothing was settled in a batch yet">Requests that have an escrow of their own are paid one by one.</Empty>}
        />
        {hasNextPage && (
          <div className="mt-4 flex justify-center">
            <Button kind="quiet" onClick={() => void fetchNextPage()} disabled={isFetchingNextPage}>{isFetchingNextPage ? "Loading" : "Older ones"}</Button>
          </div>
        )}
      </Card>
    </div>
  );
}

function Outbox({ status, waiting }: { status: ClusterStatus; waiting: SettlementOverview["waiting"] }) {
  const { settlement, at } = status;
  const worries = settlement === null ? [] : worriesOf(settlement);
  return (
    <Card title="What waits">
      <dl className="grid grid-cols-2 gap-x-6 gap-y-4 text-sm sm:grid-cols-3 lg:grid-cols-4">
        <Fact name="Requests to be settled" hint={waiting.oldest_at === null ? undefined : `the oldest ended ${ago(waiting.oldest_at, at)}`}>{count(waiting.requests)}</Fact>
        <Fact name="Providers are owed for them" hint={`settled after ${span(waiting.settle_seconds)}, or when one of them is owed ${far(waiting.threshold_units)}`}><Amount units={waiting.units} /></Fact>
        {settlement !== null && (
          <>
            <Fact name="Transactions to be sent" hint={settlement.oldest_seconds === null ? undefined : `the oldest waits for ${span(settlement.oldest_seconds)}`}>{count(settlement.pending)}</Fact>
            <Fact name="Sent, in no block yet">{count(settlement.sent)}</Fact>
            <Fact name="Confirmed, ever">{count(settlement.confirmed)}</Fact>
            <Fact name="Refused, ever" hint="those that need a person stand below">{count(settlement.failed)}</Fact>
            <Fact name="Gateway that sends">{settlement.settler ?? "none"}</Fact>
          </>
        )}
      </dl>
      <div className="mt-4 flex flex-col gap-4">
        {settlement === null && <Notice kind="warn" title="The database does not answer">What the chain was asked for is not known at the moment.</Notice>}
        {worries.length > 0 && (
          <Notice kind="warn" title="Somebody has to look at this">
            <ul className="list-disc pl-5">
              {worries.map((worry) => (
                <li key={worry} className="break-words">{worry}</li>
              ))}
            </ul>
          </Notice>
        )}
        {waiting.ordered && <Notice kind="info" title="Everything is being settled now">Somebody asked for it.</Notice>}
        <details className="text-sm">
          <summary className="w-fit cursor-pointer rounded-md py-2 text-soft hover:text-ink">Settle before its time</summary>
          <p className="mt-1 mb-2 max-w-prose text-soft">Beside the database, in the gateway&apos;s environment. The first shows what would be settled and what cannot be, and why.</p>
          <CodeBlock code={"far-mesh settle --dry-run\nfar-mesh settle --now"} what="the commands that settle" />
        </details>
      </div>
    </Card>
  );
}

function Fact({ name, hint, children }: { name: string; hint?: string | undefined; children: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-soft">{name}</dt>
      <dd className="font-medium break-words tabular-nums">{children}</dd>
      {hint !== undefined && <dd className="text-xs text-soft">{hint}</dd>}
    </div>
  );
}

function Reconciliation({ found, at }: { found: SettlementOverview["reconciliation"]; at: string }) {
  return (
    <Card title="Do the books agree with the chain?">
      {found === null ? (
        <Empty title="They were not compared yet">
          Gateways with an escrow compare them every <code>FAR_RECONCILE_SECONDS</code>; by hand <code>far-mesh reconcile</code> does.
        </Empty>
      ) : (
        <div aria-live="polite" className="flex flex-col gap-4 text-sm">
          <p>
            {found.findings.length === 0 ? <Badge kind="good">They agree</Badge> : <Badge kind="bad">{found.findings.length === 1 ? "1 thing disagrees" : `${count(found.findings.length)} things disagree`}</Badge>}{" "}
            Compared <time dateTime={found.at} title={when(found.at)}>{ago(found.at, at)}</time>, up to block {count(found.block)}.
          </p>
          {found.findings.map(({ kind, about, message, advice }) => (
            <section key={`${kind} ${about}`} aria-label={`${kind}: ${about}`} className="rounded-md border border-l-4 border-line border-l-bad p-4">
              <h3 className="font-medium break-words">{message}</h3>
              <p className="mt-1 font-mono text-xs break-all text-soft">{kind}: {about}</p>
              <p className="mt-2 max-w-prose text-soft">{advice}</p>
            </section>
          ))}
        </div>
      )}
    </Card>
  );
}

const COLUMNS: readonly Column<BatchEntry>[] = [
  { name: "Number", cell: ({ number }) => count(number) },
  { name: "Kind", cell: (one) => <span className="whitespace-nowrap">{kindOf(one)}</span> },
  { name: "Made", cell: ({ created_at: at }) => <time dateTime={at} className="whitespace-nowrap">{when(at)}</time> },
  { name: "Requests", isNumber: true, cell: ({ requests }) => count(requests) },
  { name: "Charged", isNumber: true, cell: ({ users }) => (users === 1 ? "1 user" : `${count(users)} users`) },
  { name: "Paid", isNumber: true, cell: ({ total_units: units, providers }) => <span title={providers === 1 ? "to 1 provider" : `to ${providers} providers`}><Amount units={units} /></span> },
  { name: "Fee", isNumber: true, cell: ({ fee_units: units }) => <Amount units={units} /> },
  {
    name: "State",
    cell: (one) => {
      const { word, kind, meaning } = stateOf(one);
      return (
        <>
          <span title={meaning}><Badge kind={kind}>{word}</Badge></span>
          {one.reason !== null && <span className="mt-1 block max-w-60 text-xs break-words text-soft">{one.reason}</span>}
        </>
      );
    },
  },
  { name: "Transaction", cell: ({ tx_hash: hash }) => (hash === null ? "–" : <TransactionLink hash={hash} />) },
];
