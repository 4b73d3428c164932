import type { CallOptions, Transport } from "../transport.js";
import type { AccountTier } from "../types.js";

/** All accounts that are in another tier than the usual one; for operators. */
export async function accountTiers(transport: Transport, options: CallOptions = {}): Promise<AccountTier[]> {
  return (await transport.call<{ accounts: AccountTier[] }>({ ...options, path: "/api/operator/tiers" })).body.accounts;
}
