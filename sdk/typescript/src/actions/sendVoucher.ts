import type { CallOptions, Transport } from "../transport.js";
import type { Channel } from "../types.js";
import type { Voucher } from "./signVoucher.js";

/** Hand a voucher in: a stream that waits for it goes on. */
export async function sendVoucher(
  transport: Transport,
  voucher: Voucher,
  options: CallOptions = {},
): Promise<Channel> {
  const path = `/api/channels/${encodeURIComponent(voucher.channelId)}/vouchers`;
  return (await transport.call<Channel>({ ...options, method: "POST", path, body: voucher })).body;
}
