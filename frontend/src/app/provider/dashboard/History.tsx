"use client";

import { useInfiniteQuery } from "@tanstack/react-query";
import { blocks } from "@/components/network/network";
import { Amount } from "@/components/ui/Amount";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { Empty } from "@/components/ui/Empty";
import { ErrorState } from "@/components/ui/ErrorState";
import { Loading } from "@/components/ui/Skeleton";
import { type Column, Table } from "@/components/ui/Table";
import { TransactionLink } from "@/components/ui/TransactionSteps";
import { saveFile } from "@/lib/saveFile";
import { count, short, when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { type Line, receiptsFile, stateOf } from "./earning";

const PAGE = 20;
const AGAIN_MS = 15_000;

/** What each node did for which request, what became of the money, and what proves it. */
export function History() {
  const { client, wallet } = useSession();
  const query = useInfiniteQuery({
    queryKey: ["provider", wallet, "history"],
    queryFn: ({ pageParam, signal }) => client.rewardHistory({ limit: PAGE, cursor: pageParam, receipts: true, signal }),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: ({ next_cursor: next }) => next ?? undefined,
    refetchInterval: AGAIN_MS,
  });
  const { data, error, isPending, refetch, hasNextPage, fetchNextPage, isFetchingNextPage } = query;
  const lines = data?.pages.flatMap((page) => page.lines) ?? [];
  const isProven = lines.some(({ receipt }) => typeof receipt === "string");
  return (
    <Card
      title="History"
      aside={isProven && <Button kind="quiet" onClick={() => saveFile("receipts.jsonl", receiptsFile(lines), "application/jsonl")}>Download these receipts</Button>}
    >
      {isPending ? (
        <Loading what="your history" lines={6} />
      ) : data === undefined ? (
        <ErrorState what="Your history" error={error} onRetry={() => void refetch()} />
      ) : (
        <>
          <p className="mb-3 max-w-prose text-sm text-soft">
            A line for each node of each request, newest first. A receipt is signed by your node, and anybody can check it
            without asking anybody.
          </p>
          <Table caption="What your nodes did for which request" columns={COLUMNS} rows={lines} keyOf={keyOf} empty={<Empty title="No request was served yet" />} />
          {hasNextPage && (
            <div className="mt-4 flex justify-center">
              <Button kind="quiet" onClick={() => void fetchNextPage()} disabled={isFetchingNextPage}>
                {isFetchingNextPage ? "Loading" : "Older ones"}
              </Button>
            </div>
          )}
        </>
      )}
    </Card>
  );
}

function keyOf({ request_id: id, receipt_id: receipt }: Line): string {
  return `${id} ${receipt}`;
}

const COLUMNS: readonly Column<Line>[] = [
  { name: "When", cell: ({ earned_at: at }) => <time dateTime={at} className="whitespace-nowrap">{when(at)}</time> },
  { name: "Request", cell: ({ request_id: id }) => <span className="font-mono text-xs" title={id}>{short(id, 8, 4)}</span> },
  { name: "Node", cell: ({ node_id: id }) => <span className="font-mono text-xs" title={id}>{short(id, 6, 6)}</span> },
  {
    name: "Work",
    cell: ({ model_id: model, blocks: [first, end], token_layers: layers }) => (
      <span title={model}>{blocks(first, end)}, {count(layers)} token-layers</span>
    ),
  },
  { name: "Earned", isNumber: true, cell: ({ units }) => <Amount units={units} /> },
  {
    name: "State",
    cell: (line) => {
      const { word, kind, meaning } = stateOf(line);
      return <span title={meaning}><Badge kind={kind}>{word}</Badge></span>;
    },
  },
  { name: "Transaction", cell: ({ tx_hash: hash }) => (hash === null ? "–" : <TransactionLink hash={hash} />) },
  {
    name: "Receipt",
    cell: ({ receipt, receipt_id: id }) =>
      typeof receipt === "string" ? (
        <button
          type="button"
          className="rounded-md text-brand-soft underline underline-offset-4"
          onClick={() => saveFile(`receipt-${id.slice(0, 12)}.json`, receipt, "application/json")}
        >
          Download<span className="sr-only"> receipt {id.slice(0, 12)}</span>
        </button>
      ) : (
        "–"
      ),
  },
];
