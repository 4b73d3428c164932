import { WEI_PER_UNIT } from "../amounts.js";
import { FarLabsError } from "../errors.js";
import type { Signer } from "../signer.js";

/** The escrow that vouchers are for. */
export interface EscrowDomain {
  chainId: number;
  escrow: `0x${string}`;
}

export interface Voucher {
  channelId: string;
  /** Wei, in decimal digits: the most that may be claimed over the channel in all. */
  maxClaimableAmount: string;
  signature: `0x${string}`;
}

/**
 * Promise so many units in all over a channel (EIP-712, `Voucher(bytes32 channelId,uint128 maxClaimableAmount)`).
 *
 * @throws FarLabsError `cannot_sign`: this signer signs no typed data.
 */
export async function signVoucher(
  signer: Signer,
  domain: EscrowDomain,
  channelId: string,
  units: number | bigint,
): Promise<Voucher> {
  if (signer.signTypedData === undefined) {
    throw new FarLabsError("a voucher is typed data, which this signer does not sign", { code: "cannot_sign" });
  }
  const maxClaimableAmount = (BigInt(units) * WEI_PER_UNIT).toString();
  const signature = await signer.signTypedData({
    domain: { name: "Far Mesh Escrow", version: "1", chainId: domain.chainId, verifyingContract: domain.escrow },
    types: {
      Voucher: [
        { name: "channelId", type: "bytes32" },
        { name: "maxClaimableAmount", type: "uint128" },
      ],
    },
    primaryType: "Voucher",
    message: { channelId, maxClaimableAmount },
  });
  return { channelId, maxClaimableAmount, signature };
}
