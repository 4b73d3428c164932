import type { ApiKey } from "farlabs";
import { expect, test } from "vitest";
import { limitsOf, mayOf, NEW_KEY, requestOf, sorted, stateOf } from "@/app/account/keys";

const now = Date.parse("2026-11-22T00:00:00Z");
const key: ApiKey = {
  id: "key_1", name: "website", prefix: "sk-abc", scopes: ["inference"], limits: {}, created_at: "2026-11-01T00:00:00Z",
  last_used_at: null, expires_at: null, revoked_at: null,
};

test("a name is enough: such a key asks models, for ever, as its account may", () => {
  expect(requestOf({ ...NEW_KEY, name: " website " }, now)).toEqual({
    request: { name: "website", scopes: ["inference"], expires_at: null, limits: { units_per_day: null, requests_per_minute: null } },
  });
});

test("life and limits become what the gateway counts in", () => {
  const form = { ...NEW_KEY, name: "a", life: "30", farPerDay: "0.5", requestsPerMinute: "60" } as const;
  expect(requestOf(form, now)).toMatchObject({
    request: { expires_at: "2026-12-22T00:00:00.000Z", limits: { units_per_day: 500_000_000, requests_per_minute: 60 } },
  });
});

test("everything that is wrong is told at once, by its field", () => {
  const form = { ...NEW_KEY, name: " ", scopes: [], farPerDay: "much", requestsPerMinute: "1.5" };
  const found = requestOf(form, now);
  expect("problems" in found && Object.keys(found.problems)).toEqual(["name", "scopes", "farPerDay", "requestsPerMinute"]);
});

test("a name that is too long, and limits that nobody can count, are refused", () => {
  expect(requestOf({ ...NEW_KEY, name: "x".repeat(101) }, now)).toHaveProperty("problems.name");
  expect(requestOf({ ...NEW_KEY, name: "x", farPerDay: "9007200" }, now)).toHaveProperty("problems.farPerDay");
  for (const rate of ["0", "-1", "1000001", "abc"]) expect(requestOf({ ...NEW_KEY, name: "x", requestsPerMinute: rate }, now)).toHaveProperty("problems.requestsPerMinute");
});

test("a key counts until it is revoked or its time is over", () => {
  expect(stateOf(key, now)).toBe("active");
  expect(stateOf({ ...key, expires_at: "2026-11-22T00:00:01Z" }, now)).toBe("active");
  expect(stateOf({ ...key, expires_at: "2026-11-22T00:00:00Z" }, now)).toBe("expired");
  expect(stateOf({ ...key, expires_at: "2027-01-01T00:00:00Z", revoked_at: "2026-11-21T00:00:00Z" }, now)).toBe("revoked");
});

test("keys that count come first, else the order stays", () => {
  const gone = { ...key, id: "key_0", revoked_at: "2026-11-21T00:00:00Z" };
  const other = { ...key, id: "key_2" };
  expect(sorted([gone, key, other], now).map(({ id }) => id)).toEqual(["key_1", "key_2", "key_0"]);
});

test("limits and scopes in words", () => {
  expect(limitsOf({ units_per_day: 500_000_000, requests_per_minute: 1 })).toBe("0.5 FAR a day, 1 request a minute");
  expect(limitsOf({ units_per_day: null, requests_per_minute: null })).toBe("those of the account");
  expect(mayOf(["inference", "operator"])).toBe("ask models, operate");
});
