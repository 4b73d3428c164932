import type { Call, CallOptions, Transport } from "../transport.js";
import type { Usage } from "../types.js";

export interface UsageOptions extends CallOptions {
  /** Days of UTC, `YYYY-MM-DD`, both included. */
  from?: string | undefined;
  to?: string | undefined;
  model?: string | undefined;
  apiKey?: string | undefined;
  limit?: number | undefined;
  cursor?: string | undefined;
}

/** What one has used by day, model and API key. */
export async function usage(transport: Transport, options: UsageOptions = {}): Promise<Usage> {
  const { query, call } = usageQuery(options);
  return (await transport.call<Usage>({ ...call, path: "/api/account/usage", query })).body;
}

/** @internal */
export function usageQuery(options: UsageOptions): { query: NonNullable<Call["query"]>; call: CallOptions } {
  const { from, to, model, apiKey, limit, cursor, ...call } = options;
  return { query: { from, to, model_id: model, api_key_id: apiKey, limit, cursor }, call };
}
