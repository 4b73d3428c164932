import type { CallOptions, Transport } from "../transport.js";
import type { ProviderStats } from "../types.js";

/** A provider at a glance. */
export async function providerStats(transport: Transport, options: CallOptions = {}): Promise<ProviderStats> {
  return (await transport.call<ProviderStats>({ ...options, path: "/api/provider/stats" })).body;
}
