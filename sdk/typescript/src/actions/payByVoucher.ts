import { FarLabsError } from "../errors.js";
import type { PayVoucher } from "../generation.js";
import type { Signer } from "../signer.js";
import type { CallOptions, Transport } from "../transport.js";
import type { Quote } from "../types.js";
import { balance } from "./balance.js";
import { channel } from "./channel.js";
import { sendVoucher } from "./sendVoucher.js";
import { type EscrowDomain, signVoucher } from "./signVoucher.js";

export interface PayByVoucherOptions extends CallOptions {
  /** The prices that were agreed: send its `quote_id` with the request. */
  quote: Quote;
  /** The key of the channel. Default: the transport's wallet. */
  signer?: Signer | undefined;
  /** The most that is promised before it was received. Default: the step that the gateway names. */
  stepUnits?: bigint | undefined;
  /** Never promise more than this over the channel, in all. */
  maxUnits?: bigint | undefined;
}

/**
 * Pays one answer step by step: give it as `onVoucher`. What is promised never exceeds what the channel was charged
 * before, what has come of this answer at the quoted prices, and one step: that step is all that a gateway could take
 * and vanish. What it wants beyond that is not signed.
 *
 * ```ts
 * const quote = await client.quote({ model, prompt });
 * const onVoucher = client.payByVoucher({ quote, signer: sessionKey });
 * const story = client.generate({ model, prompt, quote_id: quote.quote_id, payment: `channel:${id}`, onVoucher });
 * ```
 *
 * @throws (while the answer is read) FarLabsError `voucher_limit`, `no_signer`, `no_escrow`, `cannot_sign`.
 */
export function payByVoucher(transport: Transport, options: PayByVoucherOptions): PayVoucher {
  const { quote, signer = transport.signer, stepUnits, maxUnits, ...call } = options;
  const promptUnits = BigInt(quote.prompt_tokens) * BigInt(quote.prompt_price_units);
  let terms: Promise<[EscrowDomain, bigint]> | undefined;
  return async (needed, tokens) => {
    if (signer === undefined) throw new FarLabsError("vouchers are signed by a wallet: give signer", { code: "no_signer" });
    terms ??= Promise.all([escrowOf(transport, call), chargedBefore(transport, needed.channel_id, call)]);
    const [domain, charged] = await terms;
    const received = charged + promptUnits + BigInt(tokens) * BigInt(quote.completion_price_units);
    const most = least(
      received + (stepUnits ?? BigInt(needed.step_units)),
      BigInt(needed.deposit_units),
      maxUnits ?? BigInt(needed.deposit_units),
    );
    if (BigInt(needed.promise_units) > most) {
      const message = `the stream wants ${needed.promise_units} units promised, and ${most} is the most that is due`;
      throw new FarLabsError(message, { code: "voucher_limit" });
    }
    try {
      await sendVoucher(transport, await signVoucher(signer, domain, needed.channel_id, most), call);
    } catch (error) {
      // As much was promised before: by the same voucher, of which the answer was lost, or for another answer.
      if (!(error instanceof FarLabsError) || error.code !== "voucher_stale") throw error;
    }
  };
}

async function escrowOf(transport: Transport, call: CallOptions): Promise<EscrowDomain> {
  const { chain_id: chainId, escrow_address: escrow } = await balance(transport, call);
  if (escrow === null) throw new FarLabsError("this marketplace has no channels", { code: "no_escrow" });
  return { chainId, escrow: escrow as `0x${string}` };
}

/** What other answers have cost over the channel: what the gateway says, as far as it was signed for. */
async function chargedBefore(transport: Transport, channelId: string, call: CallOptions): Promise<bigint> {
  const { captured_units: captured, promised_units: promised } = await channel(transport, channelId, call);
  return BigInt(Math.min(captured, promised));
}

function least(...amounts: bigint[]): bigint {
  return amounts.reduce((one, other) => (other < one ? other : one));
}
