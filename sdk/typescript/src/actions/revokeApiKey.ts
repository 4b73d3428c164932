import type { CallOptions, Transport } from "../transport.js";

/** The key counts no more, from now on. */
export async function revokeApiKey(transport: Transport, id: string, options: CallOptions = {}): Promise<void> {
  await transport.call({ ...options, method: "DELETE", path: `/api/account/keys/${encodeURIComponent(id)}` });
}
