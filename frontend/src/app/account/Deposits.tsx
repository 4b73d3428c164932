"use client";

import { useInfiniteQuery } from "@tanstack/react-query";
import type { ChainEvent } from "farlabs";
import { Amount } from "@/components/ui/Amount";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Empty } from "@/components/ui/Empty";
import { ErrorState } from "@/components/ui/ErrorState";
import { Loading } from "@/components/ui/Skeleton";
import { type Column, Table } from "@/components/ui/Table";
import { TransactionLink } from "@/components/ui/TransactionSteps";
import { when } from "@/lib/format";
import { useSession } from "@/lib/session";

const PAGE = 20;

/** What the chain has told of the deposit. */
export function Deposits({ isAsked }: { isAsked: boolean }) {
  const { client, wallet } = useSession();
  const { data, error, isPending, refetch, hasNextPage, fetchNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["deposits", wallet],
    enabled: isAsked,
    queryFn: ({ pageParam, signal }) => client.deposits({ limit: PAGE, before: pageParam, signal }),
    initialPageParam: undefined as number | undefined,
    getNextPageParam: ({ next_before: next }) => next ?? undefined,
  });
  if (isPending) return isAsked ? <Loading what="your deposits" /> : null;
  if (data === undefined) return <ErrorState what="Your deposits" error={error} onRetry={() => void refetch()} />;
  return (
    <>
      <Table
        caption="What the chain has told of your deposit"
        columns={COLUMNS}
        rows={data.pages.flatMap(({ deposits }) => deposits)}
        keyOf={({ id }) => String(id)}
        empty={<Empty title="Nothing was paid in yet" />}
      />
      {hasNextPage && (
        <div className="flex justify-center">
          <Button kind="quiet" onClick={() => void fetchNextPage()} disabled={isFetchingNextPage}>
            {isFetchingNextPage ? "Loading" : "Older ones"}
          </Button>
        </div>
      )}
    </>
  );
}

/** Events of the escrow, and `Transferred` where there is none. */
const WORDS: Readonly<Record<string, string>> = {
  Deposited: "Paid in",
  Transferred: "Paid in by transfer",
  DepositWithdrawn: "Withdrawn",
  ChannelOpened: "Put into a payment channel",
  ChannelToppedUp: "Put into a payment channel",
  ChannelClosing: "Started to close a payment channel",
  ChannelClosed: "Came back from a payment channel",
  VoucherRedeemed: "Redeemed from a payment channel",
  EscrowCreated: "Locked for a request",
  EscrowReleased: "Came back from a request",
  EscrowCancelled: "Came back from a request",
};

const COLUMNS: readonly Column<ChainEvent>[] = [
  { name: "When", cell: ({ booked_at: at }) => <time dateTime={at}>{when(at)}</time> },
  {
    name: "What",
    cell: ({ kind, vanished_at: vanished }) => (
      <>
        {WORDS[kind] ?? kind}{" "}
        {vanished !== null && <span title={`Its block was given up by the chain, seen ${when(vanished)}`}><Badge kind="warn">counts no more</Badge></span>}
      </>
    ),
  },
  { name: "Change", isNumber: true, cell: ({ units }) => <Amount units={units} /> },
  { name: "Transaction", cell: ({ tx_hash: hash }) => <TransactionLink hash={hash} /> },
];
