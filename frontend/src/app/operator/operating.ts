/** What operators are told, in words, and what they type, as values. Pure. */

import { type BatchEntry, type ClusterStatus, FarLabsError, type ListedPrice, parseFar } from "farlabs";

/** How often what changes by itself is asked for again. */
export const AGAIN_MS = 5_000;

type Kind = "plain" | "good" | "warn" | "bad";

export interface Word {
  word: string;
  kind: Kind;
  meaning: string;
}

/** How long ago something was, or how soon it will be, roughly: `3 min`. */
export function span(seconds: number): string {
  const all = Math.abs(seconds);
  if (all < 90) return `${Math.round(all)} s`;
  if (all < 90 * 60) return `${Math.round(all / 60)} min`;
  if (all < 36 * 3_600) return `${Math.round(all / 3_600)} h`;
  return `${Math.round(all / 86_400)} days`;
}

/** The same between two times; `at` is the gateway's own clock. */
export function ago(then: string, at: string): string {
  const seconds = (Date.parse(at) - Date.parse(then)) / 1_000;
  return seconds < 0 ? `in ${span(seconds)}` : `${span(seconds)} ago`;
}

const STATES: Readonly<Record<NonNullable<BatchEntry["status"]>, Word>> = {
  pending: { word: "to be sent", kind: "plain", meaning: "Nothing was signed for it yet." },
  sent: { word: "sent", kind: "plain", meaning: "Signed and sent; waits for a block." },
  confirmed: { word: "confirmed", kind: "good", meaning: "The chain has done it." },
  failed: { word: "refused", kind: "warn", meaning: "The chain refused it. What was in it waits for another one." },
};
const UNKNOWN: Word = { word: "not asked", kind: "plain", meaning: "Nobody asked the chain for it." };

/** How far the transaction of a batch is. One that is refused for now stays to be sent, with the reason. */
export function stateOf({ status, reason }: Pick<BatchEntry, "status" | "reason">): Word {
  if (status === null) return UNKNOWN;
  if (status === "pending" && reason !== null) return { word: "held up", kind: "warn", meaning: "The chain refuses it for now; it is tried again." };
  return STATES[status];
}

const KINDS: Readonly<Record<BatchEntry["kind"], string>> = { batch: "batch", root: "payout root", transfer: "transfer" };

export function kindOf({ kind }: Pick<BatchEntry, "kind">): string {
  return KINDS[kind];
}

const LEASES: Readonly<Record<string, string>> = {
  settler: "sends transactions",
  reconciler: "compares the books with the chain",
};

/** What the gateway that holds a lease does alone. */
export function dutyOf(lease: string): string {
  return LEASES[lease] ?? lease;
}

type Settlement = NonNullable<ClusterStatus["settlement"]>;

/** What a person has to look at, the worst first. */
export function worriesOf(settlement: Settlement): string[] {
  const { settler, failures, waiting, at_fee_cap: capped, pending, sent } = settlement;
  return [
    ...failures.map(({ kind, request_id: id, reason }) => `Refused for good: ${kind} of ${id}${reason === null ? "" : ` (${reason})`}.`),
    ...waiting.map(({ kind, request_id: id, reason }) => `Refused for now: ${kind} of ${id}${reason === null ? "" : ` (${reason})`}.`),
    ...(capped > 0 ? [`${count(capped, "transaction waits", "transactions wait")} because FAR_MAX_FEE_GWEI allows no higher fee.`] : []),
    ...(settler === null && pending + sent > 0 ? [`No gateway sends transactions, and ${count(pending + sent, "waits", "wait")}.`] : []),
  ];
}

function count(number: number, one: string, many: string): string {
  return `${number} ${number === 1 ? one : many}`;
}

const SOURCES: Readonly<Record<NonNullable<ListedPrice["source"]>, string>> = {
  database: "set by an operator",
  settings: "settings of the gateway",
  tier: "multiple of standard",
};

export function sourceOf({ source }: Pick<ListedPrice, "source">): string {
  return source === null ? "not sold" : SOURCES[source];
}

export interface Read<T> {
  value?: T;
  problem?: string;
}

/** Units per token of a price as people write it: FAR for 1,000 tokens. Neither where there is nothing yet. */
export function readPrice(text: string, { least }: { least: number }): Read<number> {
  const typed = text.trim();
  if (typed === "") return {};
  let units: bigint;
  try {
    units = parseFar(typed);
  } catch (error) {
    if (error instanceof FarLabsError) return { problem: "Write an amount such as 0.25." };
    throw error;
  }
  if (units % 1_000n !== 0n) return { problem: "The smallest step is 0.000001 FAR for 1,000 tokens." };
  const perToken = units / 1_000n;
  if (perToken > BigInt(Number.MAX_SAFE_INTEGER)) return { problem: "That is more than a price can be." };
  if (perToken < BigInt(least)) return { problem: "An answer is never free: 0.000001 or more." };
  return { value: Number(perToken) };
}

/** The end of a day of UTC, as `<input type="date">` names it. */
export function endOf(day: string): string | undefined {
  return day === "" ? undefined : `${day}T23:59:59Z`;
}

const MEMBER = /^(0x[0-9a-fA-F]{40}|[1-9A-HJ-NP-Za-km-z]{40,64})$/;

/** Node ids and wallets, one to a line or with commas between them, each once. */
export function readMembers(text: string): Read<string[]> {
  const found = [...new Set(text.split(/[\s,]+/).filter((word) => word !== ""))];
  const odd = found.find((word) => !MEMBER.test(word));
  return odd === undefined ? { value: found } : { problem: `${odd} is neither the id of a node nor a wallet.` };
}
