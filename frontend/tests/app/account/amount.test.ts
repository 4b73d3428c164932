import { expect, test } from "vitest";
import { readAmount, toUnits, toWei, withdrawable } from "@/app/account/amount";

test("an amount is read to the last unit", () => {
  expect(readAmount(" 12.5 ")).toEqual({ units: 12_500_000_000n });
  expect(readAmount("0.000000001")).toEqual({ units: 1n });
});

test("nothing is neither right nor wrong", () => {
  expect(readAmount("  ")).toEqual({});
});

test("what is no amount is told how one looks", () => {
  for (const text of ["1,5", "abc", "-1", "1e3", "0.0000000001", "1."]) expect(readAmount(text).problem).toContain("such as 12.5");
});

test("zero is refused", () => {
  expect(readAmount("0.0").problem).toBe("More than nothing.");
});

test("more than there is names what there is", () => {
  const most = { units: 2_000_000_000n, what: "Your wallet has" };
  expect(readAmount("2", most)).toEqual({ units: 2_000_000_000n });
  expect(readAmount("2.000000001", most)).toEqual({ problem: "Your wallet has 2 FAR." });
});

test("units and wei are each other's, and dust below a unit stays", () => {
  expect(toWei(5n)).toBe(5_000_000_000n);
  expect(toUnits(5_999_999_999n)).toBe(5n);
});

test("as much can be taken out as is free in the books and there on chain", () => {
  expect(withdrawable(7, undefined)).toBe(7n);
  expect(withdrawable(7, 5n)).toBe(5n);
  expect(withdrawable(5, 7n)).toBe(5n);
  expect(withdrawable(-3, 7n)).toBe(0n);
});
