import type { CallOptions, Transport } from "../transport.js";
import type { Channel } from "../types.js";
import type { Voucher } from "./signVoucher.js";

/**
 * Hand a voucher in: a stream that waits for it goes on.
 *
 * @throws PaymentRequiredError `voucher_stale`: as much was promised before, be it by this voucher, when the answer to it
 *   was lost; or it is refused.
 */
export async function sendVoucher(
  transport: Transport,
  voucher: Voucher,
  options: CallOptions = {},
): Promise<Channel> {
  const call = { ...options, method: "POST", body: voucher, repeatable: true } as const;
  const path = `/api/channels/${encodeURIComponent(voucher.channelId)}/vouchers`;
  return (await transport.call<Channel>({ ...call, path })).body;
}
