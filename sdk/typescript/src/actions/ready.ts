import type { CallOptions, Transport } from "../transport.js";
import type { Readiness } from "../types.js";

/** Whether the gateway can serve, part by part. That it cannot is an answer as well. */
export async function ready(transport: Transport, options: CallOptions = {}): Promise<Readiness> {
  const call = { path: "/ready", auth: "none", accept: [503] } as const;
  return (await transport.call<Readiness>({ ...options, ...call })).body;
}
