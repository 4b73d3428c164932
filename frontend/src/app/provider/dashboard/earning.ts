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

/** Below this a node is left out of routes of the tier premium. */
const RELIABLE = 0.95;
/** As busy as this, and requests are sent to others where there are any. */
const FULL = 0.9;

export function standingOf(node: Pick<Node, "state" | "reliability_score" | "models">): Standing {
  if (node.state === "leaving") {
    return { word: "leaving", kind: "warn", advice: "It takes no new requests, and ends when those that it has are done. Start it again when you like." };
  }
  if (node.state !== "announced") {
    const advice =
      node.state === "registered"
        ? "The swarm does not hear of it, so nothing is sent to it. On its machine, far-node status says whether it runs, and far-node doctor what is wrong."
        : "It was seen once, and is not there. Start it with far-node start, with the identity that it had.";
    return { word: node.state === "registered" ? "not heard of" : "gone", kind: "bad", advice };
  }
  if (node.reliability_score !== null && node.reliability_score < RELIABLE) {
    return {
      word: "serving",
      kind: "warn",
      advice: "Its reliability is below 0.95, which requests of the tier premium ask for unless the operator has set something else. Each request that it completes raises it; a steadier connection keeps it up.",
    };
  }
  if (node.models.length > 0 && node.models.every(({ load }) => load >= FULL)) {
    return { word: "serving", kind: "good", advice: "It is as busy as it can be: what comes on top goes to other nodes, or waits." };
  }
  return { word: "serving", kind: "good", advice: undefined };
}

/** Why a score is what it is, with what is remembered of the node: what is older counts for less. */
export function reasonOf({ score }: Pick<Node, "score">): string {
  if (score === null) return "Not measured: no gateway has sent it a request yet.";
  const failures = score.failed + score.timed_out;
  const parts = [
    `${times(score.completed)} its work was proven, ${times(failures)} it could not be reached, refused, or broke off`,
    ...(score.pauses_caused > 0 ? [`${times(score.pauses_caused)} others waited for it`] : []),
    ...(score.receipts_rejected > 0 ? [`${times(score.receipts_rejected)} its receipt was not true`] : []),
    ...(score.probes_wrong > 0 ? [`${times(score.probes_wrong)} what it computed was wrong`] : []),
  ];
  const factors = [score.dependability, score.honesty, score.presence, score.standing].map((each) => each.toFixed(3));
  return `${parts.join("; ")}. Dependable × honest × present × known: ${factors.join(" × ")} = ${score.value.toFixed(3)}`;
}

function times(count: number): string {
  return count === 1 ? "once" : `${count} times`;
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

/** Nodes that have earned for this wallet, and that it has not claimed. */
export function unclaimed(perNode: Rewards["per_node"], nodes: readonly Pick<Node, "node_id">[]): Rewards["per_node"] {
  const claimed = new Set(nodes.map(({ node_id: id }) => id));
  return perNode.filter(({ node_id: id }) => !claimed.has(id));
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
