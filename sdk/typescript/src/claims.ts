/** Claims of nodes: a wallet says that a node earns for it, and the node has said the same (`far-node claim`). */

import { FarLabsError } from "./errors.js";
import type { Signer, TypedData } from "./signer.js";
import type { NodeClaim } from "./types.js";

/** The half that the node has signed. */
export type UnsignedNodeClaim = Omit<NodeClaim, "signature">;

const FIELDS = ["n", "w", "g", "c", "t", "d", "s"] as const;
const MOST_GATEWAY_CHARACTERS = 2000;

/**
 * The claim in a link that `far-node claim` has printed, or in its fragment. The gateway checks the node's signature.
 *
 * @throws FarLabsError `invalid_claim`: there is none, or not all of it.
 */
export function readNodeClaim(link: string): UnsignedNodeClaim {
  const given = [...new URLSearchParams(link.slice(link.lastIndexOf("#") + 1))];
  const fields = new Map(given);
  const [n, w, g, c, t, d, s] = FIELDS.map((name) => fields.get(name) ?? "") as [string, string, string, string, string, string, string];
  const isWhole = given.length === FIELDS.length && FIELDS.every((name) => fields.has(name));
  const isRight =
    /^[1-9A-HJ-NP-Za-km-z]{1,64}$/.test(n) &&
    /^0x[0-9a-fA-F]{40}$/.test(w) &&
    g !== "" &&
    g.length <= MOST_GATEWAY_CHARACTERS &&
    [c, t, d].every((text) => /^[1-9]\d{0,15}$/.test(text) && Number.isSafeInteger(Number(text)));
  if (!isWhole || !isRight) {
    throw new FarLabsError("this is no claim of a node: open the link as far-node claim has printed it, whole", {
      code: "invalid_claim",
    });
  }
  return {
    node_id: n,
    wallet_address: w,
    gateway: g,
    chain_id: Number(c),
    nonce: Number(t),
    deadline: Number(d),
    node_signature: s,
  };
}

/** What the wallet signs (EIP-712): `NodeClaim(string node,address wallet,string gateway,uint256 nonce,uint256 deadline)`. */
export function nodeClaimTypedData(claim: UnsignedNodeClaim): TypedData {
  return {
    domain: { name: "Far Mesh", version: "1", chainId: claim.chain_id },
    types: {
      NodeClaim: [
        { name: "node", type: "string" },
        { name: "wallet", type: "address" },
        { name: "gateway", type: "string" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
      ],
    },
    primaryType: "NodeClaim",
    message: {
      node: claim.node_id,
      wallet: claim.wallet_address,
      gateway: claim.gateway,
      nonce: BigInt(claim.nonce),
      deadline: BigInt(claim.deadline),
    },
  };
}

/**
 * The whole claim, for `claimNode`.
 *
 * @throws FarLabsError `wrong_wallet`: it is for another; `cannot_sign`: this signer signs no typed data.
 */
export async function signNodeClaim(signer: Signer, claim: UnsignedNodeClaim): Promise<NodeClaim> {
  if (signer.address.toLowerCase() !== claim.wallet_address.toLowerCase()) {
    throw new FarLabsError(`the claim is for ${claim.wallet_address}: change to that wallet`, { code: "wrong_wallet" });
  }
  if (signer.signTypedData === undefined) {
    throw new FarLabsError("a claim is typed data, which this signer does not sign", { code: "cannot_sign" });
  }
  return { ...claim, signature: await signer.signTypedData(nodeClaimTypedData(claim)) };
}
