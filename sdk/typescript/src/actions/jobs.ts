import type { CallOptions, Transport } from "../transport.js";
import type { Jobs, JobStatus } from "../types.js";

export interface JobsOptions extends CallOptions {
  status?: JobStatus | undefined;
  limit?: number | undefined;
  /** `next_cursor` of the page before. */
  cursor?: string | undefined;
}

/** One's jobs, the newest first, without what was said in them. */
export async function jobs(transport: Transport, options: JobsOptions = {}): Promise<Jobs> {
  const { status, limit, cursor, ...call } = options;
  return (await transport.call<Jobs>({ ...call, path: "/jobs", query: { status, limit, cursor } })).body;
}
