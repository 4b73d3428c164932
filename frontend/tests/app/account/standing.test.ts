import { expect, test } from "vitest";
import { limitsOf, nodesOf, priceOf, promiseOf } from "@/app/account/standing";

test("a promise says what it is worth", () => {
  expect(promiseOf({ p95_ms_per_token: 200, credit_bps: 1_000 })).toBe("95 of 100 tokens within 200 ms; a request that misses it gives back 10.0 % of its cost");
  expect(promiseOf({ p95_ms_per_token: null, credit_bps: 0 })).toBe("no promise of speed");
});

test("prices against the standard one", () => {
  expect(priceOf({ price_factor_bps: 10_000 })).toBe("the listed price");
  expect(priceOf({ price_factor_bps: 100_000 })).toBe("10 times the listed price");
  expect(priceOf({ price_factor_bps: null })).toBe("a price of its own for each model");
});

test("each pool of nodes has words", () => {
  expect(nodesOf({ node_pool: "any" })).toContain("all nodes");
  expect(nodesOf({ node_pool: "reliable", min_reliability: 0.95 })).toContain("0.95");
  expect(nodesOf({ node_pool: "private" })).toContain("operator");
});

test("only limits that there are are told", () => {
  const none = { requests_per_minute: null, tokens_per_minute: null, concurrent_requests: null, max_tokens: null };
  expect(limitsOf(none)).toBe("no limits");
  expect(limitsOf({ ...none, requests_per_minute: 60, max_tokens: 8_192 })).toBe("60 requests a minute, 8,192 tokens an answer");
});
