/** The link that `far-node claim` prints: what is in it, and what is wrong with it. Pure. */

import { readNodeClaim, type UnsignedNodeClaim } from "farlabs";
import { readAddress } from "@/lib/address";

/** The names of the fields of the fragment, and what each is. */
const FIELDS: Readonly<Record<string, string>> = {
  n: "the node",
  w: "the wallet",
  g: "the gateway",
  c: "the chain",
  t: "the time",
  d: "the deadline",
  s: "the node’s signature",
};
const MOST_LIFETIME_SECONDS = 24 * 3600;
const MOST_AHEAD_SECONDS = 300;

export type Link = { claim: UnsignedNodeClaim } | { problem: string } | undefined;

/** What a fragment says. Undefined: there is none, and nobody has followed a link. */
export function readLink(fragment: string): Link {
  const text = fragment.replace(/^#/, "");
  if (text === "") return undefined;
  const given = [...new URLSearchParams(text)].map(([name]) => name);
  const missing = Object.keys(FIELDS).filter((name) => !given.includes(name));
  const unknown = given.filter((name) => !(name in FIELDS));
  const twice = given.filter((name, place) => name in FIELDS && given.indexOf(name) !== place);
  if (missing.length === Object.keys(FIELDS).length) return { problem: "This is no link of far-node claim." };
  if (missing.length > 0) return { problem: `The link is cut: ${told(missing)} ${missing.length === 1 ? "is" : "are"} missing. Copy it whole.` };
  if (twice.length > 0) return { problem: `The link says twice what ${told(twice)} is. Copy it again.` };
  if (unknown.length > 0) return { problem: "There is something in the link that far-node claim does not write. Do not sign it; make a new one." };
  const wallet = readAddress(new URLSearchParams(text).get("w") ?? "");
  if (wallet.address === undefined) return { problem: `The address of the wallet is none. ${wallet.problem ?? ""}`.trim() };
  try {
    const claim = readNodeClaim(text);
    const lasts = claim.deadline - claim.nonce / 1000;
    if (lasts <= 0 || lasts > MOST_LIFETIME_SECONDS) return { problem: "Its deadline is not within a day of when it was made. Make a new one." };
    if (wallet.address !== claim.wallet_address) return { problem: "The address of the wallet is not written in its EIP-55 form. Make a new link." };
    return { claim };
  } catch {
    return { problem: "The node, the gateway, or a number in the link is none. Copy it again, or make a new one." };
  }
}

function told(names: readonly string[]): string {
  const words = names.map((name) => FIELDS[name] ?? name);
  return words.length < 2 ? (words[0] ?? "") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}

/** What a claim is looked at with. What is undefined is not known yet. */
export interface Place {
  gateway: string | undefined;
  chainId: number | undefined;
  /** The connected wallet. */
  wallet: string | undefined;
  /** Unix time, in seconds. */
  now: number;
}

/** Something about a claim that has to be so before it is signed. `isRight` undefined: not known yet. */
export interface Check {
  name: "gateway" | "chain" | "deadline" | "wallet";
  isRight: boolean | undefined;
  /** What to do, where it is wrong. */
  advice: string;
}

export function check(claim: UnsignedNodeClaim, { gateway, chainId, wallet, now }: Place): Check[] {
  const left = claim.deadline - now;
  const isFuture = claim.nonce / 1000 > now + MOST_AHEAD_SECONDS;
  return [
    {
      name: "gateway",
      isRight: gateway === undefined ? undefined : claim.gateway === gateway,
      advice: `It is meant for ${claim.gateway}, and this is ${gateway ?? "another"}. Open it there, or make a new one with --gateway.`,
    },
    {
      name: "chain",
      isRight: chainId === undefined ? undefined : claim.chain_id === chainId,
      advice: `It is meant for chain ${claim.chain_id}, and this marketplace is on ${chainId ?? "another"}. Make a new one for this gateway.`,
    },
    {
      name: "deadline",
      isRight: left > 0 && !isFuture,
      advice: isFuture
        ? "It comes from the future: the clock of the node’s machine or of this one is wrong."
        : "It was to be signed earlier. Make a new one with far-node claim.",
    },
    {
      name: "wallet",
      isRight: wallet === undefined ? undefined : claim.wallet_address.toLowerCase() === wallet.toLowerCase(),
      advice: `It is for the wallet ${claim.wallet_address}: change to that one in your wallet program.`,
    },
  ];
}

/** `14 min`, `40 s`: how long a claim can still be signed. */
export function remaining(seconds: number): string {
  if (seconds <= 0) return "passed";
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
