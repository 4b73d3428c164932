import type { CallOptions, Transport } from "../transport.js";
import type { ActiveNodes } from "../types.js";

export interface ActiveNodesOptions extends CallOptions {
  /** The nearest first to this point: degrees of latitude and longitude. */
  location?: readonly [number, number] | undefined;
  maxDistanceKm?: number | undefined;
  limit?: number | undefined;
  offset?: number | undefined;
}

/** The nodes that serve a model now. */
export async function activeNodes(
  transport: Transport,
  model: string,
  options: ActiveNodesOptions = {},
): Promise<ActiveNodes> {
  const { location, maxDistanceKm, limit, offset, ...call } = options;
  const query = { location: location?.join(","), max_distance_km: maxDistanceKm, limit, offset };
  const path = `/api/nodes/active/${model.split("/").map(encodeURIComponent).join("/")}`;
  return (await transport.call<ActiveNodes>({ ...call, path, query, auth: "none" })).body;
}
