import type { CallOptions, Transport } from "../transport.js";
import type { JobState } from "../types.js";
import { jobResult } from "./jobResult.js";

const WAIT_SECONDS = 30;

/** A job once it has ended, however long that takes: give a `signal` to give up. It may have failed: see `status`. */
export async function waitForJob(transport: Transport, id: string, options: CallOptions = {}): Promise<JobState> {
  for (;;) {
    const job = await jobResult(transport, id, { ...options, wait: WAIT_SECONDS });
    if (job.ended_at !== null) return job;
  }
}
