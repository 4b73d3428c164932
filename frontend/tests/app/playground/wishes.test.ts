import type { Model } from "farlabs";
import { expect, test } from "vitest";
import { DEFAULTS, modelIn, optionsOf, priceIn, problemsOf } from "@/app/playground/wishes";

const model = {
  id: "tiny",
  context_length: 64,
  available: true,
  prompt_price_units: 1,
  completion_price_units: 2,
  prices: {
    standard: { prompt_price_units: 1, completion_price_units: 2 },
    premium: { prompt_price_units: 3, completion_price_units: 4 },
  },
} as unknown as Model;

test("what has no effect is not sent", () => {
  expect(optionsOf({ ...DEFAULTS, model: "tiny" })).toEqual({ model: "tiny", temperature: 0.7 });
});

test("every wish arrives under the gateway's name", () => {
  const wishes = {
    ...DEFAULTS,
    model: "tiny",
    tier: "premium",
    payment: "escrow" as const,
    temperature: 0,
    topP: 0.9,
    topK: "40",
    minP: 0.1,
    maxTokens: " 12 ",
    seed: "-7",
    stop: "End.\n\\n\\n\n",
    presencePenalty: 1,
    frequencyPenalty: -1,
    repetitionPenalty: 1.1,
    format: "json_schema" as const,
    schema: '{"type": "object"}',
  };
  expect(problemsOf(wishes, model)).toEqual({});
  expect(optionsOf(wishes)).toEqual({
    model: "tiny",
    tier: "premium",
    payment: "escrow",
    temperature: 0,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.1,
    maxTokens: 12,
    seed: -7,
    stop: ["End.", "\n\n"],
    presence_penalty: 1,
    frequency_penalty: -1,
    repetition_penalty: 1.1,
    response_format: { type: "json_schema", json_schema: { name: "answer", schema: { type: "object" } } },
  });
});

test.each([
  ["maxTokens", "0"],
  ["maxTokens", "1.5"],
  ["maxTokens", "65"],
  ["maxTokens", "many"],
  ["topK", "-1"],
  ["seed", "1e3"],
  ["seed", "9".repeat(20)],
  ["stop", Array.from({ length: 17 }, (_, place) => `${place}`).join("\n")],
  ["stop", "x".repeat(257)],
] as const)("%s %s is refused where it is typed", (name, text) => {
  expect(Object.keys(problemsOf({ ...DEFAULTS, [name]: text }, model))).toEqual([name]);
});

test.each(["", "[]", "null", "{", "7"])("a schema %s is none", (schema) => {
  expect(problemsOf({ ...DEFAULTS, format: "json_schema", schema }, model)).toHaveProperty("schema");
  expect(problemsOf({ ...DEFAULTS, format: "json_object", schema }, model)).toEqual({});
});

test("a tier that a model does not name costs what the others cost", () => {
  expect(priceIn(model, "premium")).toEqual({ prompt: 3, completion: 4 });
  expect(priceIn(model, "")).toEqual({ prompt: 1, completion: 2 });
  expect(priceIn(model, "enterprise")).toEqual({ prompt: 1, completion: 2 });
});

test("without a choice, the first model that can be had is asked", () => {
  const away = { ...model, id: "away", available: false };
  expect(modelIn([away, model], "")?.id).toBe("tiny");
  expect(modelIn([away, model], "away")?.id).toBe("away");
  expect(modelIn([away], "gone")?.id).toBe("away");
  expect(modelIn([], "tiny")).toBeUndefined();
});
