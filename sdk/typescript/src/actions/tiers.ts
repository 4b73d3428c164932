import type { CallOptions, Transport } from "../transport.js";
import type { Tiers } from "../types.js";

/** What each tier promises and costs. */
export async function tiers(transport: Transport, options: CallOptions = {}): Promise<Tiers> {
  return (await transport.call<Tiers>({ ...options, path: "/api/tiers", auth: "none" })).body;
}
