import type { CallOptions, Transport } from "../transport.js";
import type { Node } from "../types.js";

/** What is known of a node. */
export async function node(transport: Transport, nodeId: string, options: CallOptions = {}): Promise<Node> {
  return (await transport.call<Node>({ ...options, path: `/api/nodes/${encodeURIComponent(nodeId)}`, auth: "none" })).body;
}
