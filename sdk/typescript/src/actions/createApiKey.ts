import type { CallOptions, Transport } from "../transport.js";
import type { ApiKeyRequest, NewApiKey } from "../types.js";

export type CreateApiKeyOptions = CallOptions & Partial<ApiKeyRequest> & Pick<ApiKeyRequest, "name">;

/** A new API key. `key` is shown this once. */
export async function createApiKey(transport: Transport, options: CreateApiKeyOptions): Promise<NewApiKey> {
  const { signal, timeout, maxRetries, ...body } = options;
  const call = { signal, timeout, maxRetries, method: "POST", path: "/api/account/keys", body } as const;
  return (await transport.call<NewApiKey>(call)).body;
}
