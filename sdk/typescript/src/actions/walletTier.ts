import type { CallOptions, Transport } from "../transport.js";
import type { AccountTier } from "../types.js";

/** The tier of an account; for operators. */
export async function walletTier(transport: Transport, wallet: string, options: CallOptions = {}): Promise<AccountTier> {
  const path = `/api/operator/tiers/${encodeURIComponent(wallet)}`;
  return (await transport.call<AccountTier>({ ...options, path })).body;
}
