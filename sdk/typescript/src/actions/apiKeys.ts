import type { CallOptions, Transport } from "../transport.js";
import type { ApiKey } from "../types.js";

/** One's API keys, the newest first. Their secrets are told by nobody. */
export async function apiKeys(transport: Transport, options: CallOptions = {}): Promise<ApiKey[]> {
  return (await transport.call<{ keys: ApiKey[] }>({ ...options, path: "/api/account/keys" })).body.keys;
}
