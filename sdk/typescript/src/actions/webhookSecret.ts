import type { CallOptions, Transport } from "../transport.js";
import type { WebhookSecret } from "../types.js";

/** A new secret for `verifyWebhook`, shown this once. For a day, messages are signed with the one before it as well. */
export async function webhookSecret(transport: Transport, options: CallOptions = {}): Promise<WebhookSecret> {
  return (await transport.call<WebhookSecret>({ ...options, method: "POST", path: "/api/account/webhook-secret" })).body;
}
