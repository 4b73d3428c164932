import type { CallOptions, Transport } from "../transport.js";
import type { SettledBatch } from "../types.js";

export interface BatchOptions extends CallOptions {
  limit?: number | undefined;
  /** `next_cursor` of the page before. */
  cursor?: string | undefined;
}

/** A batch as the chain announces it, and one's own part of it, each line with its proof. */
export async function batch(transport: Transport, number: number, options: BatchOptions = {}): Promise<SettledBatch> {
  const { limit, cursor, ...call } = options;
  const path = `/api/provider/batches/${number}`;
  return (await transport.call<SettledBatch>({ ...call, path, query: { limit, cursor } })).body;
}
