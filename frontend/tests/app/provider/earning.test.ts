import type { Node, Rewards } from "farlabs";
import { expect, test } from "vitest";
import { apart, chartOf, ofOthers, partsOf, premiumOf, reachedOf, receiptsFile, type Score, sentence, standingOf, stateOf } from "@/app/provider/dashboard/earning";

const served = (load: number, reached: Node["models"][number]["reached"] = "direct"): Node["models"][number] => ({
  model_id: "m", state: "announced", blocks: [0, 8], block_count: 8, quantization: "int8", load, reached, expires_at: "2026-11-22T00:00:00Z",
});
const seen: Score = {
  value: 0.97, dependability: 0.98, honesty: 1, presence: 1, standing: 0.99, completed: 97, failed: 1, timed_out: 0,
  pauses_caused: 0, receipts_rejected: 0, probes_right: 3, probes_wrong: 0,
};
const node = { state: "announced", score: seen, models: [served(0.1)] } as const;
const day = (date: string, nodes: Record<string, number>): Rewards["per_day"][number] => ({
  date, requests: 1, token_layers: 8, earned_units: 0, earned_far: 0, nodes,
});

test("a node that serves needs no advice", () => {
  expect(standingOf({ ...node, models: [served(0.1)] })).toEqual({ word: "serving", kind: "good", advice: undefined });
  expect(standingOf({ ...node, score: null, models: [] }).advice).toBeUndefined();
});

test("each other state says what to do", () => {
  expect(standingOf({ ...node, models: [], state: "registered" })).toMatchObject({ word: "not heard of", kind: "bad" });
  expect(standingOf({ ...node, models: [], state: "registered" }).advice).toContain("far-node doctor");
  expect(standingOf({ ...node, models: [], state: "gone" }).advice).toContain("far-node start");
  expect(standingOf({ ...node, models: [], state: "leaving" }).kind).toBe("warn");
  expect(standingOf({ ...node, models: [served(0.1)], score: { ...seen, honesty: 0.49 } })).toMatchObject({ word: "not used", kind: "bad" });
  expect(standingOf({ ...node, models: [served(0.1, "none")] }).advice).toContain("--relay");
  expect(standingOf({ ...node, models: [served(0.1, "none"), served(0.1, "direct")] }).word).toBe("serving");
  expect(standingOf({ ...node, models: [served(0.95)] }).advice).toContain("busy");
  expect(standingOf({ ...node, models: [served(0.95), served(0.2)] }).advice).toBeUndefined();
});

test("nodes that are gone are told apart from those that are there", () => {
  const [leaving, gone] = [{ state: "leaving" }, { state: "gone" }] as const;
  expect(apart([leaving, gone])).toEqual({ here: [leaving], gone: [gone] });
});

test("how others get through to a node is told once, in words", () => {
  expect(reachedOf({ models: [served(0, "relay"), served(0, "relay")] })).toBe("through a relay, which is slower");
  expect(reachedOf({ models: [served(0, null)] })).toBe("it does not say");
  expect(reachedOf({ models: [] })).toBe("–");
});

test("each part of a score says what was seen", () => {
  const words = (score: Score) => partsOf(score).map(({ name, seen: said }) => `${name}: ${said}`);
  expect(words(seen)).toEqual([
    "Dependable: 97 times its work was done and proven; once it could not be reached, refused, or broke off.",
    "Honest: Nothing that it answered or signed was wrong; 3 times it answered a prober rightly.",
    "There: Never missed, where anybody has watched.",
    "Known: It is in its first hours. That passes by itself.",
  ]);
  expect(words({ ...seen, completed: 2, failed: 0, probes_right: 0, probes_wrong: 2, receipts_rejected: 1, presence: 0.9, standing: 1 })).toEqual([
    "Dependable: 2 times its work was done and proven; it never broke off. A stranger begins at 50\u00a0%.",
    "Honest: Once its receipt was not true, 2 times what it computed was wrong.",
    "There: The share of the time, since it was first seen, that it was there.",
    "Known: For hours at least.",
  ]);
  expect(partsOf(seen).map(({ value }) => value)).toEqual([0.98, 1, 1, 0.99]);
});

test("what premium asks for is told to whom it shuts out", () => {
  expect(premiumOf({ ...seen, value: 0.95 })).toBeUndefined();
  expect(premiumOf({ ...seen, value: 0.949 })).toContain("95\u00a0%");
});

test("advice of the gateway is read as sentences", () => {
  expect(sentence("it is new: that passes")).toBe("It is new: that passes.");
  expect(sentence("Run it!")).toBe("Run it!");
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

test("what nodes of others have earned for this wallet is told apart", () => {
  const earned = ["a", "b"].map((id) => ({ node_id: id, requests: 1, tokens: 1, token_layers: 1, earned_units: 1, earned_far: 0 }));
  expect(ofOthers(earned, [{ node_id: "a" }]).map(({ node_id: id }) => id)).toEqual(["b"]);
});

test("every state of a payment has words", () => {
  for (const state of ["waiting", "batch", "paid", "refused", "free"] as const) expect(stateOf({ state }).meaning).not.toBe("");
});

test("receipts are kept one per line, as they came", () => {
  expect(receiptsFile([{ receipt: '{"a":1}' }, { receipt: null }, {}, { receipt: '{"b":2}' }])).toBe('{"a":1}\n{"b":2}\n');
});
