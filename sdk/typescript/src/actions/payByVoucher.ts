import { FarLabsError } from "../errors.js";
import type { PayVoucher } from "../generation.js";
import type { Transport } from "../transport.js";
import { balance } from "./balance.js";
import { sendVoucher } from "./sendVoucher.js";
import { type EscrowDomain, signVoucher } from "./signVoucher.js";

export interface PayByVoucherOptions {
  /** Never promise more than this over a channel, in all. */
  maxUnits?: bigint | undefined;
}

/**
 * Pays a stream step by step with the transport's wallet: give it as `onVoucher`. Each voucher is for at most one step
 * more than was received; what would pass `maxUnits` or what lies in the channel is not signed.
 */
export function payByVoucher(transport: Transport, options: PayByVoucherOptions = {}): PayVoucher {
  let domain: Promise<EscrowDomain> | undefined;
  return async (needed) => {
    const { signer } = transport;
    if (signer === undefined) throw new FarLabsError("vouchers are signed by a wallet: give signer", { code: "no_signer" });
    const most = options.maxUnits ?? BigInt(needed.deposit_units);
    if (BigInt(needed.promise_units) > most) {
      throw new FarLabsError(`the stream wants ${needed.promise_units} units promised, and the limit is ${most}`, {
        code: "voucher_limit",
      });
    }
    domain ??= escrowOf(transport);
    await sendVoucher(transport, await signVoucher(signer, await domain, needed.channel_id, needed.promise_units));
  };
}

async function escrowOf(transport: Transport): Promise<EscrowDomain> {
  const { chain_id: chainId, escrow_address: escrow } = await balance(transport);
  if (escrow === null) throw new FarLabsError("this marketplace has no channels", { code: "no_escrow" });
  return { chainId, escrow: escrow as `0x${string}` };
}
