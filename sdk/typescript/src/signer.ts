/** A wallet that signs messages. An account of viem is one; see `farlabs/viem` for others. */
export interface Signer {
  readonly address: `0x${string}`;
  /** EIP-191 signature of a text, which the wallet shows to its owner. */
  signMessage(parameters: { message: string }): Promise<`0x${string}`>;
  /** EIP-712 signature; needed for vouchers, escrows of one's own and claims of nodes alone. */
  signTypedData?(parameters: TypedData): Promise<`0x${string}`>;
}

/** As `eth_signTypedData_v4` takes it (https://eips.ethereum.org/EIPS/eip-712), without the type of the domain. */
export interface TypedData {
  domain: { name: string; version: string; chainId: number; verifyingContract?: `0x${string}` };
  types: Record<string, { name: string; type: string }[]>;
  primaryType: string;
  message: Record<string, unknown>;
}
