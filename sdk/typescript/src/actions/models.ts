import type { CallOptions, Transport } from "../transport.js";
import type { Model } from "../types.js";

/** The models on sale: prices, who serves them, whether they can be had now. */
export async function models(transport: Transport, options: CallOptions = {}): Promise<Model[]> {
  return (await transport.call<{ models: Model[] }>({ ...options, path: "/api/inference/models", auth: "none" })).body.models;
}
