import { AuthenticationError, ConnectionError, PaymentRequiredError, RateLimitError, ServerError, StreamError } from "farlabs";
import { expect, test } from "vitest";
import { secondsLeft, titleOf, troubleOf } from "@/app/playground/trouble";

const NOW = 1_000_000;

test.each([
  [new PaymentRequiredError("too little", { code: "insufficient_balance", status: 402 }), "money"],
  [new StreamError("too little", { code: "allowance_too_low" }), "money"],
  [new RateLimitError("slowly", { code: "rate_limited", status: 429 }), "too_much"],
  [new StreamError("it was not its turn", { code: "queue_timeout" }), "too_much"],
  [new AuthenticationError("who?", { code: "no_credential", status: 401 }), "sign_in"],
  [new ConnectionError("nobody there", { code: "connection_failed" }), "unreachable"],
  [new StreamError("the answer broke off", { code: "stream_broken" }), "cut"],
  [new StreamError("a node was lost", { code: "generation_failed" }), "failed"],
  [new ServerError("no", { code: "no_route", status: 503 }), "failed"],
  [new Error("User rejected the request."), "refused"],
])("%s is %s", (error, kind) => {
  const trouble = troubleOf(error, NOW);
  expect(trouble.kind).toBe(kind);
  expect(trouble.message).toMatch(/^[A-Z].*[.?!]$/);
  expect(titleOf(trouble)).toMatch(/^[A-Z]/);
});

test("how long to wait is counted down and not said twice", () => {
  const trouble = troubleOf(new RateLimitError("too many requests", { code: "rate_limited", status: 429, retryAfter: 7.2 }), NOW);
  expect(trouble.message).toBe("Too many requests.");
  expect(secondsLeft(trouble, NOW)).toBe(8);
  expect(secondsLeft(trouble, NOW + 7_000)).toBe(1);
  expect(secondsLeft(trouble, NOW + 60_000)).toBe(0);
});

test("what names itself can be asked about", () => {
  const trouble = troubleOf(new ServerError("no", { code: "no_route", status: 503, requestId: "call_1" }), NOW);
  expect(trouble).toMatchObject({ code: "no_route", requestId: "call_1", retryAt: null });
  expect(secondsLeft(trouble, NOW)).toBe(0);
});
