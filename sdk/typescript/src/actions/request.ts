import type { CallOptions, Transport } from "../transport.js";
import type { RequestState } from "../types.js";

/** One of one's own requests: its money, its nodes, its settlement. */
export async function request(transport: Transport, requestId: string, options: CallOptions = {}): Promise<RequestState> {
  return (await transport.call<RequestState>({ ...options, path: `/api/inference/requests/${encodeURIComponent(requestId)}` })).body;
}
