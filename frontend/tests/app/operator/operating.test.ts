import { expect, test } from "vitest";
import { ago, dutyOf, endOf, kindOf, readMembers, readPrice, sourceOf, span, stateOf, worriesOf } from "@/app/operator/operating";

const calm = { pending: 0, sent: 0, confirmed: 3, failed: 0, settler: "here", oldest_seconds: null, at_fee_cap: 0, failures: [], waiting: [] };
const NODE = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const WALLET = `0x${"ab".repeat(20)}`;

test("times are told as roughly as people say them", () => {
  expect([0, 89, 90, 5_399, 5_400, 129_599, 129_600].map(span)).toEqual(["0 s", "89 s", "2 min", "90 min", "2 h", "36 h", "2 days"]);
  expect(ago("2026-11-21T23:59:00Z", "2026-11-22T00:00:00Z")).toBe("60 s ago");
  expect(ago("2026-11-22T00:10:00Z", "2026-11-22T00:00:00Z")).toBe("in 10 min");
});

test("a batch is as far as its transaction", () => {
  expect(stateOf({ status: "confirmed", reason: null })).toMatchObject({ word: "confirmed", kind: "good" });
  expect(stateOf({ status: "failed", reason: "no" }).meaning).toContain("another one");
  expect(stateOf({ status: "pending", reason: null }).word).toBe("to be sent");
  expect(stateOf({ status: "pending", reason: "DailyCapExceeded" })).toMatchObject({ word: "held up", kind: "warn" });
  expect(stateOf({ status: null, reason: null }).word).toBe("not asked");
  expect([kindOf({ kind: "root" }), dutyOf("settler"), dutyOf("other")]).toEqual(["payout root", "sends transactions", "other"]);
});

test("only what a person can do something about is a worry", () => {
  expect(worriesOf(calm)).toEqual([]);
  expect(worriesOf({ ...calm, settler: null })).toEqual([]);
  expect(worriesOf({ ...calm, settler: null, pending: 1, sent: 1 })).toEqual(["No gateway sends transactions, and 2 wait."]);
  const refused = { kind: "release", request_id: "req_1", reason: "EscrowClosed" };
  const found = worriesOf({ ...calm, at_fee_cap: 1, failures: [refused], waiting: [{ ...refused, reason: null }] });
  expect(found).toEqual([
    "Refused for good: release of req_1 (EscrowClosed).",
    "Refused for now: release of req_1.",
    "1 transaction waits because FAR_MAX_FEE_GWEI allows no higher fee.",
  ]);
});

test("a price is exact, or it is none", () => {
  expect(readPrice("0.25", { least: 1 })).toEqual({ value: 250_000 });
  expect(readPrice(" 0.000001 ", { least: 1 })).toEqual({ value: 1 });
  expect(readPrice("0", { least: 0 })).toEqual({ value: 0 });
  expect(readPrice("", { least: 1 })).toEqual({});
  expect(readPrice("0", { least: 1 }).problem).toContain("never free");
  expect(readPrice("0.0000005", { least: 0 }).problem).toContain("0.000001");
  expect(readPrice("9007199255", { least: 0 }).problem).toContain("more than a price");
  for (const text of ["x", "-1", "1e3", "1,5", "0.0000000001"]) expect(readPrice(text, { least: 0 }).problem).toContain("such as 0.25");
  expect([sourceOf({ source: "database" }), sourceOf({ source: null })]).toEqual(["set by an operator", "not sold"]);
});

test("a last day ends with it", () => {
  expect(endOf("2027-12-31")).toBe("2027-12-31T23:59:59Z");
  expect(endOf("")).toBeUndefined();
});

test("the members of a pool are nodes and wallets, each once", () => {
  expect(readMembers(`${NODE}\n ${WALLET}, ${NODE}\n`)).toEqual({ value: [NODE, WALLET] });
  expect(readMembers("  ")).toEqual({ value: [] });
  expect(readMembers(`${NODE} nonsense`).problem).toContain("nonsense");
  expect(readMembers("0x12").problem).toContain("0x12");
});
