import { recoverTypedDataAddress } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { expect, test } from "vitest";
import { canPermit, permitData, type TokenDomain } from "@/app/account/permit";

const token = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
const escrow = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512";
const owner = privateKeyToAccount("0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
const domain: TokenDomain = { name: "Far", version: "1", chainId: 31337n, verifyingContract: token };
const place = { token, chainId: 31337 } as const;
const permit = { owner: owner.address, spender: escrow, value: 5n, nonce: 0n, deadline: 1n } as const;

test("a permit is signed for the token that is there, and names who may take how much", async () => {
  const data = permitData(domain, place, permit);
  if (data === undefined) throw new Error("there is one");
  expect(data.domain).toEqual({ name: "Far", version: "1", chainId: 31337, verifyingContract: token });
  expect(data.message).toEqual(permit);
  const signature = await owner.signTypedData(data);
  expect(await recoverTypedDataAddress({ ...data, signature })).toBe(owner.address);
});

test("a token that names another chain or another contract gets no signature", () => {
  expect(permitData({ ...domain, chainId: 1n }, place, permit)).toBeUndefined();
  expect(permitData({ ...domain, verifyingContract: escrow }, place, permit)).toBeUndefined();
});

test("how an address is written makes no difference", () => {
  expect(permitData({ ...domain, verifyingContract: token.toLowerCase() as `0x${string}` }, place, permit)).toBeDefined();
});

test("accounts with a key can permit, contracts cannot", () => {
  expect(canPermit(undefined)).toBe(true);
  expect(canPermit("0x")).toBe(true);
  expect(canPermit("0xef0100aabbccddeeff00112233445566778899aabbccddeeff0011")).toBe(true);
  expect(canPermit("0x6080")).toBe(false);
});
