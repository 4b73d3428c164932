import { expect, test } from "vitest";
import { channelIdOf, DELAYS, leftOf, newSalt, standingOf, USUAL_DELAY } from "@/app/account/channels";

const now = Date.parse("2026-11-22T00:00:00Z");

test("a channel is open until its user starts to close it, and to be finished when the time is over", () => {
  expect(standingOf({ closes_at: null }, undefined, now)).toBe("open");
  expect(standingOf({ closes_at: "2026-11-22T00:00:01Z" }, 2, now)).toBe("closing");
  expect(standingOf({ closes_at: "2026-11-21T23:59:59Z" }, undefined, now)).toBe("to finish");
});

test("that it is closed the chain says", () => {
  expect(standingOf({ closes_at: "2026-11-23T00:00:00Z" }, 3, now)).toBe("closed");
});

test("what is left is never less than nothing", () => {
  expect(leftOf({ deposit_units: 10, earned_units: 4 })).toBe(6);
  expect(leftOf({ deposit_units: 10, earned_units: 11 })).toBe(0);
});

test("salts are 32 bytes, and never the same", () => {
  expect(newSalt()).toMatch(/^0x[0-9a-f]{64}$/);
  expect(newSalt()).not.toBe(newSalt());
});

test("the name of a channel is the contract's", () => {
  const salt = `0x${"11".repeat(32)}` as const;
  expect(channelIdOf("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", salt)).toBe("0x971413be5c95937e8e459ea64478d2e93f90403d2b9648c51a1683da6a318b89");
});

test("the usual time is one that can be chosen", () => {
  expect(Object.keys(DELAYS)).toContain(USUAL_DELAY);
});
