/** What a machine can hold of a model, how it is started, and what others were paid for that. Pure. */

import type { Model, ModelToServe } from "farlabs";

export type Device = ModelToServe["weights"][number]["device"];
export type Quantization = ModelToServe["weights"][number]["quantization"];

export const GIB = 1024 ** 3;
/** What `far-node start` leaves free, or takes for other things than weights, unless it is told otherwise. */
export const RESERVE_BYTES = 2 * GIB;
export const CACHE_BYTES = GIB + 128 * 1024 ** 2;

/** A choice to begin with; memory by the makers' data sheets. */
export const GPUS: readonly { name: string; gib: number }[] = [
  { name: "RTX 3060", gib: 12 },
  { name: "RTX 3070", gib: 8 },
  { name: "RTX 3080", gib: 10 },
  { name: "RTX 3090", gib: 24 },
  { name: "RTX 4060", gib: 8 },
  { name: "RTX 4070", gib: 12 },
  { name: "RTX 4080", gib: 16 },
  { name: "RTX 4090", gib: 24 },
  { name: "RTX 5070", gib: 12 },
  { name: "RTX 5080", gib: 16 },
  { name: "RTX 5090", gib: 32 },
  { name: "RTX A4000", gib: 16 },
  { name: "RTX A6000", gib: 48 },
  { name: "T4", gib: 16 },
  { name: "L4", gib: 24 },
  { name: "L40S", gib: 48 },
  { name: "A100 40 GB", gib: 40 },
  { name: "A100 80 GB", gib: 80 },
  { name: "H100", gib: 80 },
  { name: "H200", gib: 141 },
];

/** Blocks `[first, end)`. */
export type Range = readonly [first: number, end: number];

/** Bytes that weights may take of a device's memory. */
export function room(gib: number): number {
  return Math.max(0, gib * GIB - RESERVE_BYTES - CACHE_BYTES);
}

/** Every longest range of blocks that fits into so many bytes; none, where not even one does. */
export function longest(blockBytes: readonly number[], bytes: number): Range[] {
  let found: Range[] = [];
  let [end, taken] = [0, 0];
  for (let first = 0; first < blockBytes.length; first++) {
    for (; end < blockBytes.length && taken + (blockBytes[end] ?? 0) <= bytes; end++) taken += blockBytes[end] ?? 0;
    const length = end - first;
    const most = found[0] === undefined ? 0 : found[0][1] - found[0][0];
    if (length > most) found = [];
    if (length > 0 && length >= most) found.push([first, end]);
    if (end > first) taken -= blockBytes[first] ?? 0;
    else end = first + 1;
  }
  return found;
}

/** What of a model fits in one kind of weights. */
export interface Fit {
  quantization: Quantization;
  /** Of all blocks. */
  wholeBytes: number;
  blockCount: number;
  /** How many fit; 0: not one. */
  blocks: number;
  ranges: readonly Range[];
}

export function fits(model: ModelToServe, device: Device, gib: number): Fit[] {
  return model.weights
    .filter((one) => one.device === device)
    .map(({ quantization, block_bytes: bytes }) => {
      const ranges = longest(bytes, room(gib));
      const wholeBytes = bytes.reduce((sum, one) => sum + one, 0);
      return { quantization, wholeBytes, blockCount: bytes.length, blocks: ranges[0] === undefined ? 0 : ranges[0][1] - ranges[0][0], ranges };
    });
}

/** What a node takes unless it is told otherwise: int8, and on a GPU that does not hold the whole in it, nf4. */
export function usual(found: readonly Fit[], device: Device): Quantization {
  const whole = found.find(({ quantization, blocks, blockCount }) => quantization === "int8" && blocks === blockCount);
  return device === "cpu" || whole !== undefined ? "int8" : "nf4";
}

/** Of equally long ranges the one where a node more is worth most: where the fewest serve. The lowest of several. */
export function mostNeeded(ranges: readonly Range[], replicas: readonly number[]): Range | undefined {
  const share = ([first, end]: Range) => replicas.slice(first, end).reduce((sum, one) => sum + 1 / (one + 1), 0);
  return ranges.reduce<Range | undefined>((best, one) => (best === undefined || share(one) > share(best) ? one : best), undefined);
}

/** How many nodes serve each block. */
export function replicasOf({ coverage, block_count: count }: Pick<Model, "coverage" | "block_count">): number[] {
  const replicas = Array.from({ length: count }, () => 0);
  for (const { first_block: first, end_block: end, replicas: many } of coverage) replicas.fill(many, first, end);
  return replicas;
}

/** Units of 1e-9 FAR in a week, from `low` to `high`; or why nobody can say. */
export type Estimate = { low: number; high: number } | { reason: string };

export const FEWEST_REQUESTS = 20;

/**
 * What the blocks of `range` would have earned in the last week: `low` shared evenly with those who serve them now, `high`
 * if all their work had gone to one node. Every block is paid the same part of a request.
 */
export function estimate(week: ModelToServe["last_week"], range: Range | undefined, replicas: readonly number[]): Estimate {
  if (range === undefined) return { reason: "Not one block of this model fits into that memory." };
  if (week.requests === 0) return { reason: "Nobody has asked for this model in the last seven days: there is nothing to reckon with." };
  if (week.requests < FEWEST_REQUESTS) {
    const asked = week.requests === 1 ? "1 request" : `${week.requests} requests`;
    return { reason: `Not enough data: ${asked} in the last seven days. Fewer than ${FEWEST_REQUESTS} say nothing about the next.` };
  }
  const perBlock = week.node_units / replicas.length;
  const shared = replicas.slice(...range).reduce((sum, one) => sum + 1 / (one + 1), 0);
  return { low: Math.round(perBlock * shared), high: Math.round(perBlock * (range[1] - range[0])) };
}

export interface Start {
  model: ModelToServe;
  wallet: string;
  /** Address of the gateway, which names peers of its swarm. */
  gateway: string;
  prefix: string;
  isPrivate: boolean;
  device: Device;
  /** Undefined: as the node chooses by itself. */
  quantization: Quantization | undefined;
  isBehindRouter: boolean;
}

const DEFAULT_PREFIX = "far";

/** The command that starts a node, as a shell takes it. */
export function startCommand(start: Start): string {
  const { model, wallet, gateway, prefix, isPrivate, device, quantization, isBehindRouter } = start;
  const flags: (readonly string[])[] = [
    ["--model", model.source ?? "DIRECTORY"],
    ...(model.source === model.model_id ? [] : [["--model-id", model.model_id]]),
    ["--wallet", wallet],
    ...(isPrivate ? [["--swarm", "swarm.json"], ["--invite", "invitation.txt"]] : [["--discovery", gateway]]),
    ...(isPrivate || prefix === DEFAULT_PREFIX ? [] : [["--prefix", prefix]]),
    ...(quantization === undefined ? [] : [["--quantization", quantization]]),
    ...(device === "cpu" ? [["--cpu-only"]] : []),
    ...(isBehindRouter ? [["--relay"]] : []),
  ];
  return ["far-node start", ...flags.map((flag) => `  ${flag.map(quoted).join(" ")}`)].join(" \\\n");
}

/** A word that a POSIX shell takes as it is, whatever is in it. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Bytes for eyes. */
export function gibibytes(bytes: number): string {
  if (bytes >= 10 * GIB) return `${(bytes / GIB).toFixed(1)} GiB`;
  return bytes >= GIB / 10 ? `${(bytes / GIB).toFixed(2)} GiB` : `${(bytes / 1024 ** 2).toFixed(2)} MiB`;
}
