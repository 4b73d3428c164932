import type { CallOptions, Transport } from "../transport.js";
import type { Channel } from "../types.js";

/** Have the gateway look at a channel that was just opened or topped up, before it finds it by itself. */
export async function lookAtChannel(
  transport: Transport,
  channelId: string,
  options: CallOptions = {},
): Promise<Channel> {
  const call = { method: "POST", path: "/api/channels", body: { channel_id: channelId }, repeatable: true } as const;
  return (await transport.call<Channel>({ ...options, ...call })).body;
}
