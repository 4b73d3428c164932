import { describe, expect, it } from "vitest";
import { FarLabsError, formatFar, parseFar } from "../src/index.js";

describe("amounts", () => {
  it.each([
    [0n, "0"],
    [1n, "0.000000001"],
    [1_234_567_890n, "1.23456789"],
    [10n ** 9n, "1"],
    [-1_500_000_000n, "-1.5"],
    [2n ** 63n - 1n, "9223372036.854775807"],
  ])("%s units are written as %s, and read again", (units, text) => {
    expect(formatFar(units)).toBe(text);
    expect(formatFar(units.toString())).toBe(text);
    if (units >= 0n) expect(parseFar(text)).toBe(units);
  });

  it.each([["1.50", 1_500_000_000n], [" 2 ", 2_000_000_000n], ["007", 7_000_000_000n]])("%s is read", (text, units) => {
    expect(parseFar(text)).toBe(units);
  });

  it.each(["", ".", "1.", ".5", "-1", "+1", "1e9", "1,5", "1.0000000001", "0x10", "٣", "1".repeat(31), "NaN"])(
    "%j is no amount",
    (text) => {
      expect(() => parseFar(text)).toThrow(expect.objectContaining({ code: "invalid_amount" }));
    },
  );

  it.each([1.5, NaN, Infinity, "1.5", "", "x"])("%j are no units", (units) => {
    expect(() => formatFar(units)).toThrow(FarLabsError);
  });
});
