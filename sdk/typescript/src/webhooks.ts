/** Messages that tell of a job's end, signed as https://www.standardwebhooks.com says. Needs WebCrypto alone. */

import { isObject, WebhookError } from "./errors.js";

export interface WebhookMessage {
  /** The same each time that the message is sent, so that who gets it twice can tell. */
  id: string;
  type: "job.completed" | "job.failed" | "job.cancelled";
  /** ISO 8601. */
  timestamp: string;
  data: WebhookData;
}

/** What happened. `text` and all else of a result is there only where the job's webhook has asked for it. */
export interface WebhookData {
  job_id: string;
  status: string;
  model_id: string;
  [field: string]: unknown;
}

export interface VerifyWebhookOptions {
  /** `whsec_…`, as `webhookSecret` has told it. */
  secret: string;
  headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>;
  /** The body as it came, byte by byte: not parsed and written again. */
  body: string | Uint8Array;
  /** Seconds by which clocks may differ, and after which a message is too old. Default: 300. */
  tolerance?: number | undefined;
}

/**
 * A message, once it is certain that the gateway sent it, and not long ago.
 *
 * @throws WebhookError `webhook_invalid`, with the first thing that is wrong.
 */
export async function verifyWebhook(options: VerifyWebhookOptions): Promise<WebhookMessage> {
  const { secret, headers, body, tolerance = 300 } = options;
  const [id, timestamp, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) =>
    header(headers, name),
  ) as [string, string, string];
  if (!/^\d{1,12}$/.test(timestamp)) throw wrong("webhook-timestamp is no time");
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > tolerance) throw wrong("the message is not of now");
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const key = await crypto.subtle.importKey("raw", keyOf(secret), { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
  const signed = joined(new TextEncoder().encode(`${id}.${timestamp}.`), bytes);
  let isOurs = false;
  for (const one of signatures.split(" ")) {
    const signature = one.startsWith("v1,") ? decoded(one.slice(3)) : undefined;
    if (signature !== undefined && (await crypto.subtle.verify("HMAC", key, signature, signed))) isOurs = true;
  }
  if (!isOurs) throw wrong("the message is not signed with this secret");
  return { id, ...parsed(bytes) };
}

function header(headers: VerifyWebhookOptions["headers"], name: string): string {
  const found = headers instanceof Headers ? headers.get(name) : Object.entries(headers).find(([key]) => key.toLowerCase() === name)?.[1];
  if (typeof found !== "string" || found === "") throw wrong(`${name} is missing`);
  return found;
}

function keyOf(secret: string): Uint8Array<ArrayBuffer> {
  const key = secret.startsWith("whsec_") ? decoded(secret.slice("whsec_".length)) : undefined;
  if (key === undefined || key.length === 0) throw wrong("a secret begins with whsec_, and the rest is base64");
  return key;
}

function decoded(base64: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

function parsed(bytes: Uint8Array): Omit<WebhookMessage, "id"> {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (isObject(value) && isObject(value["data"]) && typeof value["type"] === "string") {
      return value as unknown as Omit<WebhookMessage, "id">;
    }
  } catch {
    // said below
  }
  throw wrong("the message has no type and data");
}

function wrong(message: string): WebhookError {
  return new WebhookError(message, { code: "webhook_invalid" });
}
