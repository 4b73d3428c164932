import type { CallOptions, Transport } from "../transport.js";
import type { RebalanceAdvice } from "../types.js";

export interface RebalanceOptions extends CallOptions {
  /** Default: all models. */
  model?: string | undefined;
  /** How many nodes each block should have. Default: 2. */
  replicas?: number | undefined;
}

/** Which blocks are thin, and which nodes would do more good where. Advice alone; for operators. */
export async function rebalance(transport: Transport, options: RebalanceOptions = {}): Promise<RebalanceAdvice> {
  const { model, replicas, ...call } = options;
  const how = { method: "POST", path: "/api/cluster/rebalance", repeatable: true } as const;
  return (await transport.call<RebalanceAdvice>({ ...call, ...how, body: { model_id: model, replicas } })).body;
}
