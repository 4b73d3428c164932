import type { CallOptions, Transport } from "../transport.js";
import type { PayoutAddress } from "../types.js";

/** Where a provider is paid by transfer, where there is no escrow, and what takes its place when. */
export async function payoutAddress(transport: Transport, options: CallOptions = {}): Promise<PayoutAddress> {
  return (await transport.call<PayoutAddress>({ ...options, path: "/api/provider/payout-address" })).body;
}
