import type { CallOptions, Transport } from "../transport.js";
import type { RequestReceipts } from "../types.js";

/** What nodes have signed for one of one's own requests: see `verifyReceipt`. */
export async function receipts(transport: Transport, requestId: string, options: CallOptions = {}): Promise<RequestReceipts> {
  return (await transport.call<RequestReceipts>({ ...options, path: `/api/inference/requests/${encodeURIComponent(requestId)}/receipts` })).body;
}
