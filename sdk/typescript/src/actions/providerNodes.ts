import type { CallOptions, Transport } from "../transport.js";
import type { Node } from "../types.js";

/** The nodes that one's wallet has claimed, and all that is known of them. */
export async function providerNodes(transport: Transport, options: CallOptions = {}): Promise<Node[]> {
  return (await transport.call<{ nodes: Node[] }>({ ...options, path: "/api/provider/nodes" })).body.nodes;
}
