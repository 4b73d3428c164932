import type { CallOptions, Transport } from "../transport.js";
import type { AccountTier } from "../types.js";

/** One's own tier. */
export async function accountTier(transport: Transport, options: CallOptions = {}): Promise<AccountTier> {
  return (await transport.call<AccountTier>({ ...options, path: "/api/account/tier" })).body;
}
