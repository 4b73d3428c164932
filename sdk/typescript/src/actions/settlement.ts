import type { CallOptions, Transport } from "../transport.js";
import type { SettlementOverview } from "../types.js";

export interface SettlementOptions extends CallOptions {
  limit?: number | undefined;
  /** `next_before` of the page before. */
  before?: number | undefined;
}

/** What waits to be settled, the newest batches, and whether the books agree with the chain; for operators. */
export async function settlement(transport: Transport, options: SettlementOptions = {}): Promise<SettlementOverview> {
  const { limit, before, ...call } = options;
  const path = "/api/operator/settlement";
  return (await transport.call<SettlementOverview>({ ...call, path, query: { limit, before } })).body;
}
