"use client";

import { useQuery, type UseQueryResult } from "@tanstack/react-query";
import { type DepositAnswer, NotFoundError } from "farlabs";
import { useEffect } from "react";
import { useSession } from "@/lib/session";
import { useRefresh } from "./useRefresh";

const AGAIN_MS = 2_000;
/** A gateway's node of the chain may hear of a block later than the wallet's. */
const UNKNOWN_TRIES = 5;

export interface Payment {
  transaction: string;
  /** Of the wallet that has paid, where it is another one. */
  payerSignature?: string | undefined;
}

/** Tells the gateway of a transaction that has paid in, again until it is credited. */
export function useCredit(payment: Payment | undefined): UseQueryResult<DepositAnswer> {
  const { client, wallet } = useSession();
  const refresh = useRefresh();
  const query = useQuery({
    queryKey: ["credit", wallet, payment?.transaction, payment?.payerSignature],
    enabled: payment !== undefined,
    queryFn: ({ signal }) => client.deposit(payment?.transaction ?? "", { payerSignature: payment?.payerSignature, signal }),
    retry: (failures, error) => error instanceof NotFoundError && failures < UNKNOWN_TRIES,
    staleTime: Infinity,
    refetchInterval: ({ state }) => (state.data?.status === "pending" ? AGAIN_MS : false),
  });
  const isCredited = query.data?.status === "credited";
  useEffect(() => {
    if (isCredited) void refresh();
  }, [isCredited, refresh]);
  return query;
}
