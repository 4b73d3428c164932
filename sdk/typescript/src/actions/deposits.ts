import type { CallOptions, Transport } from "../transport.js";
import type { Deposits } from "../types.js";

export interface DepositsOptions extends CallOptions {
  limit?: number | undefined;
  /** `next_before` of the page before. */
  before?: number | undefined;
}

/** What the chain has told of one's deposits, newest first. */
export async function deposits(transport: Transport, options: DepositsOptions = {}): Promise<Deposits> {
  const { limit, before, ...call } = options;
  return (await transport.call<Deposits>({ ...call, path: "/api/account/deposits", query: { limit, before } })).body;
}
