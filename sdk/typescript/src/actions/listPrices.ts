import type { CallOptions, Transport } from "../transport.js";
import type { ListedPrice } from "../types.js";

/** What a token of each model costs in each tier, before demand, and who says so; for operators. */
export async function listPrices(transport: Transport, options: CallOptions = {}): Promise<ListedPrice[]> {
  return (await transport.call<{ prices: ListedPrice[] }>({ ...options, path: "/api/operator/prices" })).body.prices;
}
