"use client";

import type { UseQueryResult } from "@tanstack/react-query";
import type { DepositAnswer } from "farlabs";
import { ErrorState } from "@/components/ui/ErrorState";
import { Notice } from "@/components/ui/Notice";
import { TransactionLink } from "@/components/ui/TransactionSteps";
import { far } from "@/lib/format";

interface CreditStateProps {
  credit: UseQueryResult<DepositAnswer>;
  transaction: string;
  /** Somebody types it, and may do so again. */
  isNamed?: boolean;
}

/** What the gateway makes of a transaction that has paid in. */
export function CreditState({ credit, transaction, isNamed = false }: CreditStateProps) {
  const { data, error, refetch, isFetching } = credit;
  if (data === undefined) {
    if (error !== null && !isFetching) return <ErrorState what="What the marketplace makes of it" error={error} onRetry={() => void refetch()} />;
    return <Notice kind="info" title="The marketplace looks at it"><TransactionLink hash={transaction} /></Notice>;
  }
  if (data.status === "pending") {
    return (
      <Notice kind="info" title={typeof data.needed === "number" ? `${data.confirmations ?? 0} of ${data.needed} confirmations` : "Waiting for the chain"}>
        <p>The chain has to build on it first. You may leave this page.</p>
        <TransactionLink hash={transaction} />
      </Notice>
    );
  }
  const units = data.deposits.reduce((sum, deposit) => sum + deposit.units, 0);
  return (
    <Notice kind="good" title={`${far(units)} has arrived`}>
      {isNamed && data.was_booked && <p>It was credited before; it counts once.</p>}
      <TransactionLink hash={transaction} />
    </Notice>
  );
}
