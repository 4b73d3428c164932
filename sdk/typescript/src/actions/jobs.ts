import type { CallOptions, Transport } from "../transport.js";
import type { Jobs } from "../types.js";

/** One's jobs, the newest first. */
export async function jobs(transport: Transport, options: CallOptions = {}): Promise<Jobs> {
  return (await transport.call<Jobs>({ ...options, path: "/jobs" })).body;
}
