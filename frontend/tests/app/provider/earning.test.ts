import type { Node, Rewards } from "farlabs";
import { expect, test } from "vitest";
import { chartOf, reasonOf, receiptsFile, standingOf, stateOf, unclaimed } from "@/app/provider/dashboard/earning";

const served = (load: number): Node["models"][number] => ({
  model_id: "m", state: "announced", blocks: [0, 8], block_count: 8, quantization: "int8", load, expires_at: "2026-11-22T00:00:00Z",
});
const node = { state: "announced", reliability_score: 0.99, models: [served(0.1)] } as const;
const day = (date: string, nodes: Record<string, number>): Rewards["per_day"][number] => ({
  date, requests: 1, token_layers: 8, earned_units: 0, earned_far: 0, nodes,
});

test("a node that serves needs no advice", () => {
  expect(standingOf({ ...node, models: [served(0.1)] })).toEqual({ word: "serving", kind: "good", advice: undefined });
  expect(standingOf({ ...node, reliability_score: null, models: [] }).advice).toBeUndefined();
});

test("each other state says what to do", () => {
  expect(standingOf({ ...node, models: [], state: "registered" })).toMatchObject({ word: "not heard of", kind: "bad" });
  expect(standingOf({ ...node, models: [], state: "registered" }).advice).toContain("far-node doctor");
  expect(standingOf({ ...node, models: [], state: "gone" }).advice).toContain("far-node start");
  expect(standingOf({ ...node, models: [], state: "leaving" }).kind).toBe("warn");
  expect(standingOf({ ...node, models: [served(0.1)], reliability_score: 0.94 }).advice).toContain("0.95");
  expect(standingOf({ ...node, models: [served(0.95)] }).advice).toContain("busy");
  expect(standingOf({ ...node, models: [served(0.95), served(0.2)] }).advice).toBeUndefined();
});

test("a score is explained by what was seen, and is what the gateway reckons", () => {
  const seen = {
    value: 0.97, dependability: 0.98, honesty: 1, presence: 1, standing: 0.99, completed: 97, failed: 1, timed_out: 0,
    pauses_caused: 0, receipts_rejected: 0, probes_right: 3, probes_wrong: 0,
  };
  const text = reasonOf({ score: seen });
  expect(text).toContain("97 times its work was proven, once it could not be reached");
  expect(text).toContain("0.980 × 1.000 × 1.000 × 0.990 = 0.970");
  expect(text).not.toContain("wrong");
  expect(reasonOf({ score: { ...seen, probes_wrong: 2 } })).toContain("2 times what it computed was wrong");
  expect(reasonOf({ score: null })).toContain("Not measured");
});

test("the chart has every day and, for each, every node; who earned most comes first", () => {
  const { series, points } = chartOf([day("2026-11-20", { a: 1, b: 5 }), day("2026-11-21", {}), day("2026-11-22", { a: 2 })], (id) => `node ${id}`);
  expect(series).toEqual([{ key: "b", name: "node b" }, { key: "a", name: "node a" }]);
  expect(points).toEqual([
    { at: "2026-11-20", values: { a: 1, b: 5 } },
    { at: "2026-11-21", values: { a: 0, b: 0 } },
    { at: "2026-11-22", values: { a: 2, b: 0 } },
  ]);
});

test("where nothing was earned there is nothing to draw", () => {
  expect(chartOf([day("2026-11-20", {})], String)).toEqual({ series: [], points: [] });
});

test("nodes that earn and were not claimed are told", () => {
  const earned = ["a", "b"].map((id) => ({ node_id: id, requests: 1, tokens: 1, token_layers: 1, earned_units: 1, earned_far: 0 }));
  expect(unclaimed(earned, [{ node_id: "a" }]).map(({ node_id: id }) => id)).toEqual(["b"]);
});

test("every state of a payment has words", () => {
  for (const state of ["waiting", "batch", "paid", "refused", "free"] as const) expect(stateOf({ state }).meaning).not.toBe("");
});

test("receipts are kept one per line, as they came", () => {
  expect(receiptsFile([{ receipt: '{"a":1}' }, { receipt: null }, {}, { receipt: '{"b":2}' }])).toBe('{"a":1}\n{"b":2}\n');
});
