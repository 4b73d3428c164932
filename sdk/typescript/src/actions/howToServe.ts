import type { CallOptions, Transport } from "../transport.js";
import type { HowToServe } from "../types.js";

/** What somebody needs to know who wants to serve: peers of the swarm, what the models take in memory, what they paid. */
export async function howToServe(transport: Transport, options: CallOptions = {}): Promise<HowToServe> {
  return (await transport.call<HowToServe>({ ...options, path: "/api/provider/join", auth: "none" })).body;
}
