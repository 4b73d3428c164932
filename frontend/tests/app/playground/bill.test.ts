import type { DoneEvent, NodeUsed, RequestState } from "farlabs";
import { expect, test } from "vitest";
import { billOfDone, billOfRequest, endInWords, lanesOf, takenOver, tokensPerSecond } from "@/app/playground/bill";

function node(id: string, first: number, end: number): NodeUsed {
  const layers = Array.from({ length: end - first }, (_, place) => first + place);
  return { node_id: id, wallet_address: "0x", layers, quantization: "none", token_layers: 10, paid_units: 5 };
}

const done = {
  done: true,
  request_id: "req_1",
  cost_units: 100,
  fee_units: 20,
  credit_units: 0,
  prompt_tokens: 5,
  cached_tokens: 2,
  completion_tokens: 11,
  finish_reason: "stop",
  latency_ms: 1200,
  time_to_first_token_ms: 200,
  nodes_used: [node("ann", 0, 3)],
} as unknown as DoneEvent;

test("a stream and the books tell the same of an answer", () => {
  const state = { ...done, status: "completed" } as unknown as RequestState;
  expect(billOfRequest(state)).toEqual(billOfDone(done));
});

test("what is not settled has no bill, and what failed costs nothing", () => {
  expect(billOfRequest({ ...done, status: "active" } as unknown as RequestState)).toBeUndefined();
  expect(billOfRequest({ ...done, status: "failed", cost_units: null } as unknown as RequestState)?.costUnits).toBe(0);
});

test("speed is from the first token to the last, and not told where it was not measured", () => {
  const bill = billOfDone(done);
  expect(tokensPerSecond(bill)).toBe(10);
  expect(tokensPerSecond({ ...bill, firstTokenMs: null })).toBeUndefined();
  expect(tokensPerSecond({ ...bill, completionTokens: 1 })).toBeUndefined();
  expect(tokensPerSecond({ ...bill, latencyMs: 200 })).toBeUndefined();
});

test("nodes that follow each other stand in one row, and one that took over in the next", () => {
  const [ann, bob, cid, dan] = [node("ann", 0, 3), node("bob", 3, 6), node("cid", 6, 8), node("dan", 3, 6)];
  const lanes = lanesOf([cid, ann, bob, dan]);
  expect(lanes.map((lane) => lane.map((part) => part.node.node_id))).toEqual([["ann", "bob", "cid"], ["dan"]]);
  expect(takenOver([cid, ann, bob, dan])).toEqual([[3, 6]]);
  expect(takenOver([ann, bob, cid])).toEqual([]);
  expect(takenOver([node("a", 0, 4), node("b", 3, 8), node("c", 6, 8)])).toEqual([[3, 4], [6, 8]]);
});

test("a node without blocks has no place", () => {
  expect(lanesOf([node("ann", 0, 0)])).toEqual([]);
});

test("only an unusual end is told of", () => {
  expect(endInWords("stop")).toBeUndefined();
  expect(endInWords(null)).toBeUndefined();
  expect(endInWords("length")).toMatch(/as many tokens as it may/);
});
