import type { CallOptions, Transport } from "../transport.js";
import type { Channel } from "../types.js";

/** One of one's payment channels. */
export async function channel(transport: Transport, channelId: string, options: CallOptions = {}): Promise<Channel> {
  return (await transport.call<Channel>({ ...options, path: `/api/channels/${encodeURIComponent(channelId)}` })).body;
}
