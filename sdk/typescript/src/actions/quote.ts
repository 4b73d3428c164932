import type { CallOptions, Transport } from "../transport.js";
import type { Quote, QuoteRequest } from "../types.js";

export interface QuoteOptions extends CallOptions, Partial<Omit<QuoteRequest, "model_id" | "max_tokens">> {
  model: string;
  maxTokens?: number | undefined;
}

/** What a token costs now. Send `quote_id` with the request, and it keeps this price. */
export async function quote(transport: Transport, options: QuoteOptions): Promise<Quote> {
  const { model, maxTokens, signal, timeout, maxRetries, ...rest } = options;
  const body = { ...rest, model_id: model, max_tokens: maxTokens };
  const call = { signal, timeout, maxRetries, method: "POST", path: "/api/inference/quote", body, repeatable: true } as const;
  return (await transport.call<Quote>(call)).body;
}
