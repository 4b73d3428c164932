import type { CallOptions, Transport } from "../transport.js";
import type { PayoutClaims } from "../types.js";

export interface ClaimsOptions extends CallOptions {
  limit?: number | undefined;
  /** `next_cursor` of the page before. */
  cursor?: string | undefined;
}

/** Payout roots with something for oneself, newest first: what `claimPayout` of the escrow takes. */
export async function claims(transport: Transport, options: ClaimsOptions = {}): Promise<PayoutClaims> {
  const { limit, cursor, ...call } = options;
  return (await transport.call<PayoutClaims>({ ...call, path: "/api/provider/claims", query: { limit, cursor } })).body;
}
