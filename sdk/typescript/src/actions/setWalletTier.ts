import type { CallOptions, Transport } from "../transport.js";
import type { AccountTier, NewAccountTier } from "../types.js";

export type SetWalletTierOptions = CallOptions & NewAccountTier;

/** Put an account into a tier, for good or until a time (ISO 8601); for operators. */
export async function setWalletTier(
  transport: Transport,
  wallet: string,
  options: SetWalletTierOptions,
): Promise<AccountTier> {
  const { tier, until, ...call } = options;
  const path = `/api/operator/tiers/${encodeURIComponent(wallet)}`;
  return (await transport.call<AccountTier>({ ...call, method: "PUT", path, body: { tier, until } })).body;
}
