import type { Address, Hex, TypedDataDomain } from "viem";

/** What a token says of itself (EIP-5267, `eip712Domain`). */
export interface TokenDomain {
  name: string;
  version: string;
  chainId: bigint;
  verifyingContract: Address;
}

export interface Permit {
  owner: Address;
  spender: Address;
  value: bigint;
  nonce: bigint;
  deadline: bigint;
}

/** How an account with a key of its own begins that has lent itself a contract's code (EIP-7702). */
const DELEGATED = "0xef0100";

/** Whether tokens can check a signature of an account with this code: a contract's they cannot (EIP-2612). */
export function canPermit(code: Hex | undefined): boolean {
  return code === undefined || code === "0x" || code.startsWith(DELEGATED);
}

/**
 * What is signed so that `spender` may take `value` (EIP-2612). Undefined where the token names another place than where
 * it is: what is signed then counts nowhere, or somewhere else.
 */
export function permitData(domain: TokenDomain, place: { token: Address; chainId: number }, permit: Permit) {
  const isHere = domain.chainId === BigInt(place.chainId) && domain.verifyingContract.toLowerCase() === place.token.toLowerCase();
  if (!isHere) return undefined;
  const { name, version, verifyingContract } = domain;
  return {
    domain: { name, version, chainId: place.chainId, verifyingContract } satisfies TypedDataDomain,
    types: {
      Permit: [
        { name: "owner", type: "address" },
        { name: "spender", type: "address" },
        { name: "value", type: "uint256" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
      ],
    },
    primaryType: "Permit",
    message: permit,
  } as const;
}
