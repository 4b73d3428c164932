import type { ChatOptions, Model } from "farlabs";

/** How answers are wanted. Numbers that may be left open are kept as they are typed: empty is "as the gateway has it". */
export interface Wishes {
  model: string;
  tier: string;
  payment: "auto" | "balance" | "escrow";
  system: string;
  temperature: number;
  topP: number;
  topK: string;
  minP: number;
  maxTokens: string;
  seed: string;
  stop: string;
  presencePenalty: number;
  frequencyPenalty: number;
  repetitionPenalty: number;
  format: "text" | "json_object" | "json_schema";
  schema: string;
  quotes: boolean;
}

export const DEFAULTS: Wishes = {
  model: "",
  tier: "",
  payment: "auto",
  system: "",
  temperature: 0.7,
  topP: 1,
  topK: "",
  minP: 0,
  maxTokens: "",
  seed: "",
  stop: "",
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  format: "text",
  schema: "",
  quotes: true,
};

const MAX_STOPS = 16;
const MAX_STOP_CHARACTERS = 256;

export type Problems = Partial<Record<keyof Wishes, string>>;

/** What the gateway would refuse, said where it was typed. */
export function problemsOf(wishes: Wishes, model: Model | undefined): Problems {
  const problems: Problems = {};
  const most = model?.context_length;
  if (!isCount(wishes.maxTokens, 1)) problems.maxTokens = "A whole number, 1 or more, or nothing.";
  else if (most !== undefined && Number(wishes.maxTokens) > most) {
    problems.maxTokens = `This model has a context of ${most} tokens, the question included.`;
  }
  if (!isCount(wishes.topK, 0)) problems.topK = "A whole number, 0 or more, or nothing.";
  if (!/^(-?\d+)?$/.test(wishes.seed.trim()) || !Number.isSafeInteger(Number(wishes.seed))) {
    problems.seed = "A whole number, or nothing.";
  }
  const stops = stopsOf(wishes.stop);
  if (stops.length > MAX_STOPS) problems.stop = `At most ${MAX_STOPS} of them.`;
  else if (stops.some((one) => one.length > MAX_STOP_CHARACTERS)) {
    problems.stop = `At most ${MAX_STOP_CHARACTERS} characters each.`;
  }
  if (wishes.format === "json_schema" && schemaOf(wishes.schema) === undefined) {
    problems.schema = "This is not a JSON object.";
  }
  return problems;
}

/** The same in the gateway's names. What has no effect is not sent. */
export function optionsOf(wishes: Wishes): Omit<ChatOptions, "messages"> {
  const stops = stopsOf(wishes.stop);
  return {
    model: wishes.model,
    temperature: wishes.temperature,
    ...(wishes.maxTokens.trim() !== "" && { maxTokens: Number(wishes.maxTokens) }),
    ...(wishes.tier !== "" && { tier: wishes.tier }),
    ...(wishes.payment !== "auto" && { payment: wishes.payment }),
    ...(wishes.topP !== 1 && { top_p: wishes.topP }),
    ...(wishes.topK.trim() !== "" && { top_k: Number(wishes.topK) }),
    ...(wishes.minP !== 0 && { min_p: wishes.minP }),
    ...(wishes.seed.trim() !== "" && { seed: Number(wishes.seed) }),
    ...(stops.length > 0 && { stop: stops }),
    ...(wishes.presencePenalty !== 0 && { presence_penalty: wishes.presencePenalty }),
    ...(wishes.frequencyPenalty !== 0 && { frequency_penalty: wishes.frequencyPenalty }),
    ...(wishes.repetitionPenalty !== 1 && { repetition_penalty: wishes.repetitionPenalty }),
    ...formatOf(wishes),
  };
}

/** What a token costs in a tier; in the one called standard, where a model names no other. */
export function priceIn(model: Model, tier: string): { prompt: number; completion: number } {
  const found = model.prices[tier === "" ? "standard" : tier] ?? model;
  return { prompt: found.prompt_price_units, completion: found.completion_price_units };
}

/** The model that is asked: the one that was chosen, or else the first that can be had. */
export function modelIn(models: readonly Model[], chosen: string): Model | undefined {
  return models.find(({ id }) => id === chosen) ?? models.find(({ available }) => available) ?? models[0];
}

function formatOf({ format, schema }: Wishes): Pick<ChatOptions, "response_format"> {
  if (format === "text") return {};
  if (format === "json_object") return { response_format: { type: "json_object" } };
  return { response_format: { type: "json_schema", json_schema: { name: "answer", schema: schemaOf(schema) ?? {} } } };
}

/** One on each line; `\n` in it is a line break. */
function stopsOf(text: string): string[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replaceAll("\\n", "\n"));
}

function schemaOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

function isCount(text: string, least: number): boolean {
  return text.trim() === "" || (/^\d{1,9}$/.test(text.trim()) && Number(text) >= least);
}
