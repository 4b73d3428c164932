import type { CallOptions, Transport } from "../transport.js";
import type { PrivatePool } from "../types.js";

/** Say which nodes an account has to itself, by node id or wallet; for operators. */
export async function setPrivatePool(
  transport: Transport,
  wallet: string,
  members: readonly string[],
  options: CallOptions = {},
): Promise<PrivatePool> {
  const path = `/api/operator/pools/${encodeURIComponent(wallet)}`;
  return (await transport.call<PrivatePool>({ ...options, method: "PUT", path, body: { members } })).body;
}
