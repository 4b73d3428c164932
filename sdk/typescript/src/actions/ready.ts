import { ServerError } from "../errors.js";
import type { CallOptions, Transport } from "../transport.js";
import type { Readiness } from "../types.js";

/** Whether the gateway can serve, part by part. */
export async function ready(transport: Transport, options: CallOptions = {}): Promise<Readiness> {
  return (await transport.call<Readiness>({ maxRetries: 0, ...options, path: "/ready", auth: "none" })).body;
}
