import type { CallOptions, Transport } from "../transport.js";
import type { EmbeddingRequest, Embeddings } from "../types.js";

export interface EmbeddingsOptions extends CallOptions, Pick<EmbeddingRequest, "model" | "input"> {
  encoding_format?: EmbeddingRequest["encoding_format"];
  pooling?: EmbeddingRequest["pooling"];
  quote_id?: EmbeddingRequest["quote_id"];
  tier?: EmbeddingRequest["tier"];
  /** The name of this request: under it, it is charged once. Default: a new one. */
  idempotencyKey?: string | undefined;
}

/** Vectors of texts, in their order. */
export async function embeddings(transport: Transport, options: EmbeddingsOptions): Promise<Embeddings> {
  const { idempotencyKey, signal, timeout, maxRetries, ...body } = options;
  const how = { signal, timeout, maxRetries, idempotencyKey: idempotencyKey ?? (true as const) };
  return (await transport.call<Embeddings>({ ...how, method: "POST", path: "/v1/embeddings", body })).body;
}
