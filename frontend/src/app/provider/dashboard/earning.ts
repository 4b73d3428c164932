/** What is said of a provider's nodes and money, from what the gateway tells. Pure. */

import type { Node, RewardHistory, Rewards } from "farlabs";
import type { Point, Series } from "@/components/charts/Chart";

export type Line = RewardHistory["lines"][number];

type Kind = "plain" | "good" | "warn" | "bad";

/** A state in a word, and what to do about it; no advice where there is nothing to do. */
export interface Standing {
  word: string;
  kind: Kind;
  advice: string | undefined;
}

/** What routes of the tier premium ask for, unless the operator has set something else. */
const PREMIUM = 0.95;
/** Who is less honest than this is not used at all (`discovery.score.HONEST_ENOUGH`). */
const HONEST_ENOUGH = 0.5;
/** As busy as this, and requests are sent to others where there are any. */
const FULL = 0.9;

/** After so many requests it hardly matters that a stranger begins at one half. */
const MANY = 20;

export function standingOf(node: Pick<Node, "state" | "score" | "models">): Standing {
  const { state, score, models } = node;
  if (state === "leaving") {
    return { word: "leaving", kind: "warn", advice: "It takes no new requests, and ends when those that it has are done. Start it again when you like." };
  }
  if (state !== "announced") {
    const advice =
      state === "registered"
        ? "The swarm does not hear of it, so nothing is sent to it. On its machine, far-node status says whether it runs, and far-node doctor what is wrong."
        : "It has served, and is not there now. Start it with far-node start, with the identity that it had.";
    return { word: state === "registered" ? "not heard of" : "gone", kind: "bad", advice };
  }
  if (score !== null && score.honesty < HONEST_ENOUGH) {
    return { word: "not used", kind: "bad", advice: "What it answered or signed was wrong, so nothing is sent to it. Below stands what helps; what was seen counts half after a week." };
  }
  if (models.length > 0 && models.every(({ reached }) => reached === "none")) {
    return {
      word: "not reached",
      kind: "bad",
      advice: "As far as it knows, nobody gets through to it. Let the router forward its TCP port (31330, unless you chose another), or start it with --relay.",
    };
  }
  if (models.length > 0 && models.every(({ load }) => load >= FULL)) {
    return { word: "serving", kind: "good", advice: "It is as busy as it can be: what comes on top goes to other nodes, or waits." };
  }
  return { word: "serving", kind: "good", advice: undefined };
}

/** Those that serve or could, and those that only have: a node is remembered for what it did, whatever becomes of it. */
export function apart<N extends Pick<Node, "state">>(nodes: readonly N[]): { here: N[]; gone: N[] } {
  return { here: nodes.filter(({ state }) => state !== "gone"), gone: nodes.filter(({ state }) => state === "gone") };
}

const WAYS = { direct: "directly", relay: "through a relay, which is slower", none: "not at all" } as const;

/** How others get through to a node, as it says itself. */
export function reachedOf({ models }: Pick<Node, "models">): string {
  const ways = [...new Set(models.map(({ reached }) => reached))];
  if (models.length === 0) return "–";
  return ways.map((way) => (way === null ? "it does not say" : WAYS[way])).join("; ");
}

export type Score = NonNullable<Node["score"]>;

/** A part of a score: how much it leaves of it, from 0 to 1, and what was seen. */
export interface Part {
  name: string;
  value: number;
  seen: string;
}

/** What a score is the product of. What is older counts for less, so counts may be fractions. */
export function partsOf(score: Score): Part[] {
  const lost = [
    ...told(score.failed, "it could not be reached, refused, or broke off"),
    ...told(score.timed_out, "it came too late"),
    ...told(score.pauses_caused, "it was lost in the middle, and others waited"),
  ];
  const wrong = [
    ...told(score.receipts_rejected, "its receipt was not true"),
    ...told(score.probes_wrong, "what it computed was wrong"),
  ];
  return [
    {
      name: "Dependable",
      value: score.dependability,
      seen: `${capital(times(score.completed))} its work was done and proven; ${lost.length === 0 ? "it never broke off" : lost.join(", ")}.${score.completed < MANY ? " A stranger begins at 50\u00a0%." : ""}`,
    },
    {
      name: "Honest",
      value: score.honesty,
      seen: `${wrong.length === 0 ? "Nothing that it answered or signed was wrong" : capital(wrong.join(", "))}${score.probes_right > 0 ? `; ${times(score.probes_right)} it answered a prober rightly` : ""}.`,
    },
    {
      name: "There",
      value: score.presence,
      seen: score.presence === 1 ? "Never missed, where anybody has watched." : "The share of the time, since it was first seen, that it was there.",
    },
    { name: "Known", value: score.standing, seen: score.standing < 0.995 ? "It is in its first hours. That passes by itself." : "For hours at least." },
  ];
}

/** How far the score is from what premium asks for; undefined: it is as good. */
export function premiumOf({ value }: Score): string | undefined {
  if (value >= PREMIUM) return undefined;
  return `Requests of the tier premium ask for ${PREMIUM * 100}\u00a0%, unless the operator has set something else. All others come to it as well.`;
}

function told(count: number, what: string): string[] {
  return count > 0 ? [`${times(count)} ${what}`] : [];
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
}

/** A sentence that begins as sentences do, and ends so. */
export function sentence(text: string): string {
  return capital(/[.!?]$/.test(text) ? text : `${text}.`);
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The chart of earnings: a bar for each day, a colour for each node. Units are numbers here, exact up to 2^53. */
export function chartOf(perDay: Rewards["per_day"], nameOf: (node: string) => string): { series: Series[]; points: Point[] } {
  const totals = new Map<string, number>();
  for (const { nodes } of perDay) {
    for (const [node, units] of Object.entries(nodes)) totals.set(node, (totals.get(node) ?? 0) + units);
  }
  const nodes = [...totals].sort(([a, one], [b, other]) => other - one || a.localeCompare(b)).map(([node]) => node);
  return {
    series: nodes.map((key) => ({ key, name: nameOf(key) })),
    points: nodes.length === 0 ? [] : perDay.map(({ date, nodes: values }) => ({ at: date, values: Object.fromEntries(nodes.map((node) => [node, values[node] ?? 0])) })),
  };
}

/** What nodes have earned for this wallet that are not its own any more. */
export function ofOthers(perNode: Rewards["per_node"], nodes: readonly Pick<Node, "node_id">[]): Rewards["per_node"] {
  const own = new Set(nodes.map(({ node_id: id }) => id));
  return perNode.filter(({ node_id: id }) => !own.has(id));
}

const STATES: Readonly<Record<Line["state"], { word: string; kind: Kind; meaning: string }>> = {
  waiting: { word: "waiting", kind: "plain", meaning: "Earned; waits for a batch." },
  batch: { word: "on its way", kind: "plain", meaning: "The chain is asked to pay it." },
  paid: { word: "paid", kind: "good", meaning: "The chain has added it to your credit, a payout root promises it, or it was sent to you." },
  refused: { word: "refused", kind: "bad", meaning: "The chain refused the release. It is still owed: ask the operator." },
  free: { word: "free", kind: "plain", meaning: "Your work was proven, and the request cost nothing." },
};

export function stateOf(line: Pick<Line, "state">): { word: string; kind: Kind; meaning: string } {
  return STATES[line.state];
}

/** Receipts as `far-node start --receipts` keeps them: one per line. */
export function receiptsFile(lines: readonly Pick<Line, "receipt">[]): string {
  return lines.flatMap(({ receipt }) => (receipt === null || receipt === undefined ? [] : [`${receipt}\n`])).join("");
}
