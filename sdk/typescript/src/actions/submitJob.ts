import type { CallOptions, Transport } from "../transport.js";
import type { JobRequest, JobState } from "../types.js";

export interface SubmitJobOptions extends CallOptions, Partial<Omit<JobRequest, "model_id" | "max_tokens">> {
  model: string;
  maxTokens?: number | undefined;
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
