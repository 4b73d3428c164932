import type { CallOptions, Transport } from "../transport.js";
import type { JobRequest, JobState } from "../types.js";

type Body = Omit<JobRequest, "model_id" | "max_tokens" | "est_tokens" | "webhook">;

export interface SubmitJobOptions extends CallOptions, Partial<Body> {
  model: string;
  maxTokens?: number | undefined;
  /** Where to tell of its end, and whether with the text. The message is signed: see `verifyWebhook`. */
  webhook?: { url: string; include_result?: boolean } | undefined;
  /** Handed in once, however often it is sent under this name. Default: a new one. */
  idempotencyKey?: string | undefined;
}

/** Have something generated while nobody waits: see `jobResult`, or give a webhook. */
export async function submitJob(transport: Transport, options: SubmitJobOptions): Promise<JobState> {
  const { model, maxTokens, idempotencyKey, signal, timeout, maxRetries, ...rest } = options;
  const body = { ...rest, model_id: model, max_tokens: maxTokens };
  const how = { signal, timeout, maxRetries, idempotencyKey: idempotencyKey ?? (true as const) };
  return (await transport.call<JobState>({ ...how, method: "POST", path: "/submit", body })).body;
}
