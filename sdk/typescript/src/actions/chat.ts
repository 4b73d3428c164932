import { Generation, type PayVoucher } from "../generation.js";
import type { CallOptions, Transport } from "../transport.js";
import type { GenerateRequest } from "../types.js";
import { generate, type GenerateOptions } from "./generate.js";

export type ChatMessage = NonNullable<GenerateRequest["messages"]>[number];

export interface ChatOptions extends CallOptions, Omit<GenerateOptions, "prompt" | "messages"> {
  messages: readonly ChatMessage[];
  onVoucher?: PayVoucher | undefined;
}

/** The next message of a conversation. */
export function chat(transport: Transport, options: ChatOptions): Generation {
  return generate(transport, { ...options, messages: [...options.messages] });
}
