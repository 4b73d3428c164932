import type { CallOptions, Transport } from "../transport.js";
import type { ClaimedNode, NodeClaim } from "../types.js";

/** Hand in a claim that node and wallet have signed: the node earns for the wallet. */
export async function claimNode(
  transport: Transport,
  claim: NodeClaim,
  options: CallOptions = {},
): Promise<ClaimedNode> {
  const call = { ...options, method: "POST", path: "/api/provider/nodes", auth: "none", body: claim } as const;
  return (await transport.call<ClaimedNode>(call)).body;
}
