import type { CallOptions, Transport } from "../transport.js";
import type { ClusterStatus } from "../types.js";

/** Everything at once; for operators. */
export async function clusterStatus(transport: Transport, options: CallOptions = {}): Promise<ClusterStatus> {
  return (await transport.call<ClusterStatus>({ ...options, path: "/api/cluster/status" })).body;
}
