import { expect, test } from "vitest";
import { gas, transactionUrl } from "@/lib/chain";

test("a transaction of a known chain has a page, one of a local chain has none", () => {
  expect(transactionUrl("eip155:56", "0xab")).toBe("https://bscscan.com/tx/0xab");
  expect(transactionUrl("eip155:31337", "0xab")).toBeUndefined();
  expect(transactionUrl(undefined, "0xab")).toBeUndefined();
});

test("a hash cannot lead elsewhere", () => {
  expect(transactionUrl("eip155:56", "../../x?y#z")).toBe("https://bscscan.com/tx/..%2F..%2Fx%3Fy%23z");
});

test("gas that is little is not shown as none", () => {
  expect(gas(0n, "BNB")).toBe("0 BNB");
  expect(gas(1n, "BNB")).toBe("less than 0.000001 BNB");
  expect(gas(42_000_000_000_000n, "BNB")).toBe("0.000042 BNB");
  expect(gas(2n * 10n ** 18n, "BNB")).toBe("2 BNB");
});
