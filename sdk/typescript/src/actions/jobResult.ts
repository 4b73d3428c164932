import type { CallOptions, Transport } from "../transport.js";
import type { JobState } from "../types.js";

export interface JobResultOptions extends CallOptions {
  /** Seconds to wait for its end, as far as the gateway lets one: up to 60. */
  wait?: number | undefined;
}

/** Time for the answer itself, after the wait. */
const ANSWER_MS = 30_000;

/** How far a job is, and its result once it has ended. */
export async function jobResult(transport: Transport, id: string, options: JobResultOptions = {}): Promise<JobState> {
  const { wait, ...call } = options;
  const timeout = options.timeout ?? (wait === undefined ? undefined : wait * 1000 + ANSWER_MS);
  const path = `/results/${encodeURIComponent(id)}`;
  return (await transport.call<JobState>({ ...call, timeout, path, query: { wait } })).body;
}
