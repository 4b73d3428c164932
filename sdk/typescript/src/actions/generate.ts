import { Generation, type OnWait, type PayVoucher } from "../generation.js";
import type { CallOptions, Transport } from "../transport.js";
import type { GenerateRequest } from "../types.js";

type Body = Omit<GenerateRequest, "stream" | "model_id" | "max_tokens">;

/** What to generate: a prompt, or messages. Everything the gateway takes may be given, by the gateway's names. */
export interface GenerateOptions extends CallOptions, Partial<Body> {
  model: string;
  maxTokens?: number | undefined;
  /** The name of this request: under it, it is charged once. Default: a new one. */
  idempotencyKey?: string | undefined;
  /** Signs the voucher that the stream waits for, when it is paid by a channel. */
  onVoucher?: PayVoucher | undefined;
  /** Told where the request stands, while it waits for its turn. */
  onWait?: OnWait | undefined;
}

/** Generate text. Nothing is asked before the answer is read. */
export function generate(transport: Transport, options: GenerateOptions): Generation {
  const { model, maxTokens, idempotencyKey, onVoucher, onWait, signal, timeout, maxRetries, ...rest } = options;
  const body = { ...rest, model_id: model, max_tokens: maxTokens, stream: true };
  const call = { method: "POST", path: "/api/inference/distributed/generate", body } as const;
  const how = { signal, timeout, maxRetries, idempotencyKey: idempotencyKey ?? (true as const) };
  return new Generation(() => transport.stream({ ...call, ...how }), onVoucher, onWait);
}
