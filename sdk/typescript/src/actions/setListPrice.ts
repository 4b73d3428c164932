import type { CallOptions, Transport } from "../transport.js";
import type { ListedPrice, NewPrice } from "../types.js";

export interface SetListPriceOptions extends CallOptions {
  model: string;
  tier: ListedPrice["tier"];
  /** Units of 1e-9 FAR per token; null: the settings of the gateway decide again. */
  price: NewPrice | null;
}

/** Change what a token of a model costs in a tier, before demand; for operators. */
export async function setListPrice(transport: Transport, options: SetListPriceOptions): Promise<ListedPrice> {
  const { model, tier, price, ...call } = options;
  const body = { model_id: model, tier, price };
  return (await transport.call<ListedPrice>({ ...call, method: "PUT", path: "/api/operator/prices", body })).body;
}
