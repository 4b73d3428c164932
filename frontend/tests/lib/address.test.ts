import { expect, test } from "vitest";
import { readAddress } from "@/lib/address";

const WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

test("an address is taken with its checksum, or in one case without any", () => {
  expect(readAddress(` ${WALLET} `)).toEqual({ address: WALLET });
  expect(readAddress(WALLET.toLowerCase())).toEqual({ address: WALLET });
});

test("a mistyped one is told from one that is none", () => {
  expect(readAddress(WALLET.replace("C8", "c8")).problem).toContain("checksum");
  expect(readAddress("0x123").problem).toContain("40 digits");
  expect(readAddress("far.eth").problem).toContain("40 digits");
});

test("nothing is not wrong yet", () => {
  expect(readAddress("  ")).toEqual({});
});
