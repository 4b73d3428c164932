import type { CallOptions, Transport } from "../transport.js";
import type { NodeEarnings } from "../types.js";

export interface NodeEarningsOptions extends CallOptions {
  /** What `earnings_history` is about. */
  days?: number | undefined;
}

/** A provider at a glance, by one's own wallet. */
export async function nodeEarnings(
  transport: Transport,
  wallet: string,
  options: NodeEarningsOptions = {},
): Promise<NodeEarnings> {
  const { days, ...call } = options;
  const path = `/api/nodes/earnings/${encodeURIComponent(wallet)}`;
  return (await transport.call<NodeEarnings>({ ...call, path, query: { days } })).body;
}
