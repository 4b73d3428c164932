import type { CallOptions, Transport } from "../transport.js";
import type { Balance } from "../types.js";

/** One's prepaid money, and where to pay more in. */
export async function balance(transport: Transport, options: CallOptions = {}): Promise<Balance> {
  return (await transport.call<Balance>({ ...options, path: "/api/account/balance" })).body;
}
