import type { CallOptions, Transport } from "../transport.js";
import type { Workers } from "../types.js";

export interface WorkersOptions extends CallOptions {
  limit?: number | undefined;
  /** `next_after` of the page before. */
  after?: string | undefined;
}

/** All nodes that are known, and the serverless ones that were entered; for operators. */
export async function workers(transport: Transport, options: WorkersOptions = {}): Promise<Workers> {
  const { limit, after, ...call } = options;
  return (await transport.call<Workers>({ ...call, path: "/workers", query: { limit, after } })).body;
}
