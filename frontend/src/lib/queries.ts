"use client";

import { useQueries, useQuery, type UseQueryResult } from "@tanstack/react-query";
import { activeNodes, type ActiveNodes, type Model, models } from "farlabs";
import { payments, type Payments, publicTransport } from "./gateway";

/** What several pages ask for, asked once. It changes by itself, so it is asked again. */
const AGAIN_MS = 5_000;
const MOST_NODES = 1_000;

/** What the gateway is paid in, and on which chain. It never changes while a gateway runs. */
export function usePayments(): UseQueryResult<Payments> {
  return useQuery({ queryKey: ["payments"], queryFn: payments, staleTime: Infinity });
}

/** The models on sale. */
export function useModels(): UseQueryResult<Model[]> {
  return useQuery({
    queryKey: ["models"],
    queryFn: ({ signal }) => models(publicTransport(), { signal }),
    refetchInterval: AGAIN_MS,
  });
}

/** The nodes that serve each of some models now, in their order. */
export function useActiveNodes(modelIds: readonly string[]): UseQueryResult<ActiveNodes>[] {
  return useQueries({
    queries: modelIds.map((id) => ({
      queryKey: ["nodes", id],
      queryFn: ({ signal }: { signal: AbortSignal }) => activeNodes(publicTransport(), id, { limit: MOST_NODES, signal }),
      refetchInterval: AGAIN_MS,
    })),
  });
}
