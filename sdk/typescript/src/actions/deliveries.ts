import type { CallOptions, Transport } from "../transport.js";
import type { WebhookDelivery } from "../types.js";

/** Each time that the webhook of a job was called, and what came of it. */
export async function deliveries(
  transport: Transport,
  jobId: string,
  options: CallOptions = {},
): Promise<WebhookDelivery[]> {
  const path = `/jobs/${encodeURIComponent(jobId)}/deliveries`;
  return (await transport.call<{ deliveries: WebhookDelivery[] }>({ ...options, path })).body.deliveries;
}
