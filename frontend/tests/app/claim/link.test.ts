import { expect, test } from "vitest";
import { check, readLink, remaining } from "@/app/claim/link";

const NODE = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const MADE = 1_772_366_400;
const LINK = `#n=${NODE}&w=${WALLET}&g=https://far.example&c=31337&t=${MADE}000&d=${MADE + 1800}&s=abc`;
const place = { gateway: "https://far.example", chainId: 31337, wallet: WALLET, now: MADE + 60 };

function problem(fragment: string): string {
  const link = readLink(fragment);
  return link !== undefined && "problem" in link ? link.problem : "";
}

function claim(fragment = LINK) {
  const link = readLink(fragment);
  if (link === undefined || !("claim" in link)) throw new Error(problem(fragment));
  return link.claim;
}

const wrong = (changes: object) => check(claim(), { ...place, ...changes }).filter(({ isRight }) => isRight === false).map(({ name }) => name);

test("what far-node claim has printed is read", () => {
  expect(claim()).toEqual({
    node_id: NODE, wallet_address: WALLET, gateway: "https://far.example", chain_id: 31337,
    nonce: MADE * 1000, deadline: MADE + 1800, node_signature: "abc",
  });
});

test("nobody has followed a link where there is none", () => {
  expect(readLink("")).toBeUndefined();
  expect(readLink("#")).toBeUndefined();
});

test("a link that was cut says what is missing", () => {
  expect(problem(LINK.slice(0, LINK.indexOf("&d=")))).toBe("The link is cut: the deadline and the node’s signature are missing. Copy it whole.");
  expect(problem(LINK.slice(0, LINK.indexOf("&s=")))).toContain("the node’s signature is missing");
});

test("each other thing that can be wrong with it is told", () => {
  expect(problem("#session=abc")).toBe("This is no link of far-node claim.");
  expect(problem(`${LINK}&w=${WALLET}`)).toContain("twice what the wallet is");
  expect(problem(`${LINK}&evil=1`)).toContain("Do not sign it");
  expect(problem(LINK.replace(WALLET, WALLET.replace("C8", "c8")))).toContain("checksum");
  expect(problem(LINK.replace(WALLET, WALLET.toLowerCase()))).toContain("EIP-55 form");
  expect(problem(LINK.replace(NODE, "0OIl"))).toContain("The node");
  expect(problem(LINK.replace("c=31337", "c=0x7a69"))).toContain("a number");
  expect(problem(LINK.replace(`d=${MADE + 1800}`, `d=${MADE + 90_000}`))).toContain("within a day");
  expect(problem(LINK.replace(`d=${MADE + 1800}`, `d=${MADE}`))).toContain("within a day");
});

test("a claim is for one gateway, one chain, one wallet and a while", () => {
  expect(wrong({})).toEqual([]);
  expect(wrong({ gateway: "https://other.example" })).toEqual(["gateway"]);
  expect(wrong({ chainId: 56 })).toEqual(["chain"]);
  expect(wrong({ wallet: "0x0000000000000000000000000000000000000001" })).toEqual(["wallet"]);
  expect(wrong({ now: MADE + 1800 })).toEqual(["deadline"]);
  expect(wrong({ now: MADE - 301 })).toEqual(["deadline"]);
});

test("what is not known yet is neither right nor wrong", () => {
  const checks = check(claim(), { gateway: undefined, chainId: undefined, wallet: undefined, now: MADE });
  expect(checks.map(({ isRight }) => isRight)).toEqual([undefined, undefined, true, undefined]);
});

test("the time that is left is told coarsely", () => {
  expect([-1, 0, 40, 61, 1800, 4000].map(remaining)).toEqual(["passed", "passed", "40 s", "1 min", "30 min", "1 h 6 min"]);
});
