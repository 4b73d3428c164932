import type { CallOptions, Transport } from "../transport.js";

/** Strike a serverless worker off; for operators. */
export async function removeWorker(transport: Transport, workerId: string, options: CallOptions = {}): Promise<void> {
  await transport.call({ ...options, method: "DELETE", path: `/workers/${encodeURIComponent(workerId)}` });
}
