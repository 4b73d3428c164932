import type { CallOptions, Transport } from "../transport.js";
import type { RewardHistory } from "../types.js";

export interface RewardHistoryOptions extends CallOptions {
  limit?: number | undefined;
  cursor?: string | undefined;
  /** With the documents that the nodes have signed. */
  receipts?: boolean | undefined;
}

/** What one's nodes did for which request, newest first, and what became of the money. */
export async function rewardHistory(transport: Transport, options: RewardHistoryOptions = {}): Promise<RewardHistory> {
  const { limit, cursor, receipts, ...call } = options;
  const query = { limit, cursor, receipts };
  return (await transport.call<RewardHistory>({ ...call, path: "/api/provider/history", query })).body;
}
