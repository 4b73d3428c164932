import type { CallOptions, Transport } from "../transport.js";
import type { PayoutAddress } from "../types.js";

/** Be paid elsewhere. It counts after a while, in which whoever did not mean it can take it back. */
export async function setPayoutAddress(
  transport: Transport,
  address: string,
  options: CallOptions = {},
): Promise<PayoutAddress> {
  const call = { ...options, method: "PUT", path: "/api/provider/payout-address", body: { address } } as const;
  return (await transport.call<PayoutAddress>(call)).body;
}
