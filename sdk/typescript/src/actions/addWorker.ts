import type { CallOptions, Transport } from "../transport.js";
import type { Worker, WorkerRequest } from "../types.js";

export type AddWorkerOptions = CallOptions & Omit<WorkerRequest, "worker_type">;

/** Enter a serverless worker; for operators. */
export async function addWorker(transport: Transport, options: AddWorkerOptions): Promise<Worker> {
  const { signal, timeout, maxRetries, ...worker } = options;
  const body = { ...worker, worker_type: "serverless" };
  const call = { signal, timeout, maxRetries, method: "POST", path: "/workers", body } as const;
  return (await transport.call<Worker>(call)).body;
}
