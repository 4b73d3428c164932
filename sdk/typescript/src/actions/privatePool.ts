import type { CallOptions, Transport } from "../transport.js";
import type { PrivatePool } from "../types.js";

/** The nodes that an account has to itself; for operators. */
export async function privatePool(transport: Transport, wallet: string, options: CallOptions = {}): Promise<PrivatePool> {
  const path = `/api/operator/pools/${encodeURIComponent(wallet)}`;
  return (await transport.call<PrivatePool>({ ...options, path })).body;
}
