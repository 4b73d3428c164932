import type { CallOptions, Transport } from "../transport.js";
import type { JobState } from "../types.js";

export interface JobResultOptions extends CallOptions {
  /** Seconds to wait for its end, as far as the gateway lets one. */
  wait?: number | undefined;
}

/** How far a job is, and its result once it has ended. */
export async function jobResult(transport: Transport, id: string, options: JobResultOptions = {}): Promise<JobState> {
  const { wait, ...call } = options;
  const path = `/results/${encodeURIComponent(id)}`;
  return (await transport.call<JobState>({ ...call, path, query: { wait } })).body;
}
