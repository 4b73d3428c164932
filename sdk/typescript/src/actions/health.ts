import type { CallOptions, Transport } from "../transport.js";
import type { Health } from "../types.js";

/** Whether the gateway lives, and what it takes payment in. */
export async function health(transport: Transport, options: CallOptions = {}): Promise<Health> {
  return (await transport.call<Health>({ ...options, path: "/health", auth: "none" })).body;
}
