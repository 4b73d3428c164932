import { expect, test } from "vitest";
import { chartOf, daysOf, lastDays, type Line } from "@/app/account/consuming";

const time = { from: "2026-11-20", to: "2026-11-22" };

function line(changes: Partial<Line>): Line {
  return {
    date: "2026-11-20", model_id: "small", api_key_id: null, api_key_name: null, requests: 1, failed_requests: 0,
    prompt_tokens: 10, cached_tokens: 0, completion_tokens: 20, cost_units: 300, cost_far: "0.0000003", ...changes,
  };
}

test("each day of the time has a bar for each model, the dearest first", () => {
  const lines = [line({}), line({ date: "2026-11-22", model_id: "large", cost_units: 900 }), line({ api_key_id: "key_1" })];
  expect(chartOf(lines, time, "model", "cost")).toEqual({
    series: [{ key: "of large", name: "large" }, { key: "of small", name: "small" }],
    points: [
      { at: "2026-11-20", values: { "of large": 0, "of small": 600 } },
      { at: "2026-11-21", values: { "of large": 0, "of small": 0 } },
      { at: "2026-11-22", values: { "of large": 900, "of small": 0 } },
    ],
  });
});

test("by key, who asked without one and keys that are gone have names too", () => {
  const lines = [line({ requests: 3 }), line({ api_key_id: "key_a", api_key_name: "website", requests: 2 }), line({ api_key_id: "key_0123456789abcdef" })];
  expect(chartOf(lines, time, "key", "requests").series.map(({ name }) => name)).toEqual(["the wallet itself", "website", "key_0123…cdef (revoked)"]);
});

test("two keys with one name are two", () => {
  const lines = [line({ api_key_id: "key_a", api_key_name: "website" }), line({ api_key_id: "key_b", api_key_name: "website" })];
  expect(chartOf(lines, time, "key", "cost").series).toHaveLength(2);
});

test("tokens are those of prompts and of answers", () => {
  expect(chartOf([line({})], time, "model", "tokens").points[0]?.values).toEqual({ "of small": 30 });
});

test("where nothing was used there is nothing to draw", () => {
  expect(chartOf([], time, "model", "cost")).toEqual({ series: [], points: [] });
});

test("days are those of UTC, both ends included, over the end of a month", () => {
  expect(daysOf({ from: "2026-02-27", to: "2026-03-01" })).toEqual(["2026-02-27", "2026-02-28", "2026-03-01"]);
  expect(lastDays(7, Date.parse("2026-11-22T23:59:59Z"))).toEqual({ from: "2026-11-16", to: "2026-11-22" });
});
