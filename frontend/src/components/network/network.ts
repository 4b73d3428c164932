/** What is said of a network, from what its gateway tells. Pure. */

import type { ActiveNode, Model } from "farlabs";

export type Coverage = Model["coverage"];

/** A node, once, whatever number of models it serves. */
export interface PlacedNode {
  id: string;
  coordinates: readonly [latitude: number, longitude: number] | null;
  /** The part of the world; one of {@link PARTS}, or null. */
  part: string | null;
}

interface Part {
  name: string;
  /** In the middle of it, where a node is drawn of which no more is known. */
  middle: readonly [latitude: number, longitude: number];
}

/** The parts of the world that the gateway tells apart. */
export const PARTS: Readonly<Record<string, Part>> = {
  na: { name: "North America", middle: [40, -95] },
  sa: { name: "South America", middle: [-15, -58] },
  eu: { name: "Europe", middle: [50, 12] },
  af: { name: "Africa", middle: [2, 22] },
  me: { name: "Middle East", middle: [27, 48] },
  in: { name: "India and around", middle: [20, 78] },
  sea: { name: "South-East Asia", middle: [3, 106] },
  asia: { name: "East Asia", middle: [35, 122] },
  oc: { name: "Australia and Oceania", middle: [-28, 145] },
};

export function nodesOf(lists: readonly (readonly ActiveNode[])[]): PlacedNode[] {
  const found = new Map<string, PlacedNode>();
  for (const { node_id: id, coordinates, part } of lists.flat()) {
    found.set(id, { id, coordinates, part });
  }
  return [...found.values()];
}

/** A place on the map with so many nodes. */
export interface Spot {
  latitude: number;
  longitude: number;
  count: number;
  /** Only the part of the world is known, and this is its middle. */
  isCoarse: boolean;
  name: string;
}

export interface Places {
  spots: Spot[];
  /** The most nodes first. */
  parts: { name: string; count: number }[];
  unknown: number;
}

/** Where nodes are, and of how many nobody knows. */
export function placesOf(nodes: readonly PlacedNode[]): Places {
  const spots = new Map<string, Spot>();
  const parts = new Map<string, number>();
  let unknown = 0;
  for (const { coordinates, part: word } of nodes) {
    const part = word === null ? undefined : PARTS[word];
    const [latitude, longitude] = coordinates ?? part?.middle ?? [];
    if (latitude === undefined || longitude === undefined) {
      unknown += 1;
      continue;
    }
    const name = part?.name ?? "Elsewhere";
    parts.set(name, (parts.get(name) ?? 0) + 1);
    const key = `${latitude},${longitude},${coordinates === null}`;
    const spot = spots.get(key) ?? { latitude, longitude, count: 0, isCoarse: coordinates === null, name };
    spots.set(key, { ...spot, count: spot.count + 1 });
  }
  const sorted = [...parts].map(([name, count]) => ({ name, count })).sort((one, other) => other.count - one.count);
  return { spots: [...spots.values()], parts: sorted, unknown };
}

export function nodes(count: number): string {
  return count === 1 ? "1 node" : `${count.toLocaleString("en")} nodes`;
}

/** `block 3`, `blocks 3–5`: blocks from `first` to before `end`, counted from 0. */
export function blocks(first: number, end: number): string {
  return end - first === 1 ? `block ${first}` : `blocks ${first}–${end - 1}`;
}

/** How a model is served, in a sentence. */
export function sentenceOf(coverage: Coverage, blockCount: number): string {
  const holes = coverage.filter(({ replicas }) => replicas === 0);
  if (holes.length > 0) {
    const missing = holes.map(({ first_block: first, end_block: end }) => blocks(first, end));
    return missing.length === 1 && holes[0]?.end_block === blockCount && holes[0].first_block === 0
      ? "Nobody serves it now."
      : `Nobody serves ${missing.join(", ")} now.`;
  }
  const least = Math.min(...coverage.map(({ replicas }) => replicas));
  const all = blockCount === 1 ? "Its only block is served" : `All ${blockCount} blocks are served`;
  if (least > 1) return `${all}, each by ${least} nodes or more.`;
  const single = coverage.filter(({ replicas }) => replicas === 1);
  const lone = single.reduce((sum, { first_block: first, end_block: end }) => sum + end - first, 0);
  if (lone === blockCount) return `${all}, each by one node.`;
  return `${all}; ${lone === 1 ? "1 of them hangs" : `${lone} of them hang`} on one node alone.`;
}

/** The same for who cannot see the strip: every stretch of it. */
export function strip(coverage: Coverage): string {
  return coverage
    .map(({ first_block: first, end_block: end, replicas }) => `${blocks(first, end)}: ${replicas === 0 ? "no node" : nodes(replicas)}`)
    .join("; ");
}
