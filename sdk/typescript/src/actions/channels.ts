import type { CallOptions, Transport } from "../transport.js";
import type { Channel } from "../types.js";

/** One's payment channels, those with the most left first. */
export async function channels(transport: Transport, options: CallOptions = {}): Promise<Channel[]> {
  return (await transport.call<{ channels: Channel[] }>({ ...options, path: "/api/channels" })).body.channels;
}
