import type { CallOptions, Transport } from "../transport.js";
import type { Rewards } from "../types.js";

export interface RewardsOptions extends CallOptions {
  /** What `per_node` and `per_day` are about. */
  days?: number | undefined;
}

/** A provider's money: earned, on its way, paid, and what of it lies where. */
export async function rewards(transport: Transport, options: RewardsOptions = {}): Promise<Rewards> {
  const { days, ...call } = options;
  return (await transport.call<Rewards>({ ...call, path: "/api/provider/rewards", query: { days } })).body;
}
