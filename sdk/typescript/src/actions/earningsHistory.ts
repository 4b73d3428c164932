import type { CallOptions, Transport } from "../transport.js";
import type { Earning } from "../types.js";

export interface EarningsHistoryOptions extends CallOptions {
  days?: number | undefined;
}

/** What each of the last days brought, from the oldest to today. */
export async function earningsHistory(transport: Transport, options: EarningsHistoryOptions = {}): Promise<Earning[]> {
  const { days, ...call } = options;
  return (await transport.call<Earning[]>({ ...call, path: "/api/provider/earnings/history", query: { days } })).body;
}
