import type { DoneEvent, NodeUsed, RequestState } from "farlabs";

/** What an answer came to, whether its stream told or the books. Amounts are units of 1e-9 FAR. */
export interface Bill {
  requestId: string;
  costUnits: number;
  feeUnits: number;
  creditUnits: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  finishReason: string | null;
  latencyMs: number | null;
  firstTokenMs: number | null;
  nodes: NodeUsed[];
}

export function billOfDone(done: Omit<DoneEvent, "done">): Bill {
  return {
    requestId: done.request_id,
    costUnits: done.cost_units,
    feeUnits: done.fee_units,
    creditUnits: done.credit_units,
    promptTokens: done.prompt_tokens,
    cachedTokens: done.cached_tokens,
    completionTokens: done.completion_tokens,
    finishReason: done.finish_reason,
    latencyMs: done.latency_ms,
    firstTokenMs: done.time_to_first_token_ms,
    nodes: done.nodes_used,
  };
}

/** Of an answer that was not heard to its end. Undefined: it is not settled yet. */
export function billOfRequest(state: RequestState): Bill | undefined {
  if (!isSettled(state)) return undefined;
  return {
    requestId: state.request_id,
    costUnits: state.cost_units ?? 0,
    feeUnits: state.fee_units ?? 0,
    creditUnits: state.credit_units,
    promptTokens: state.prompt_tokens,
    cachedTokens: state.cached_tokens,
    completionTokens: state.completion_tokens,
    finishReason: state.finish_reason,
    latencyMs: state.latency_ms,
    firstTokenMs: state.time_to_first_token_ms,
    nodes: state.nodes_used,
  };
}

export function isSettled(state: RequestState): boolean {
  return state.status === "completed" || state.status === "failed";
}

/** Tokens in a second, from the first to the last. Undefined where that cannot be told. */
export function tokensPerSecond({ completionTokens, latencyMs, firstTokenMs }: Bill): number | undefined {
  if (latencyMs === null || firstTokenMs === null) return undefined;
  const seconds = (latencyMs - firstTokenMs) / 1000;
  return completionTokens > 1 && seconds > 0 ? (completionTokens - 1) / seconds : undefined;
}

const ENDS: Readonly<Record<string, string>> = {
  length: "It ends here because it has as many tokens as it may have.",
  stopped: "It was stopped.",
};

/** Why an answer ended, where that is not the ordinary way. */
export function endInWords(reason: string | null): string | undefined {
  return reason === null ? undefined : ENDS[reason];
}

/** One node's part of the work: blocks `[first, end)`. */
export interface Part {
  node: NodeUsed;
  first: number;
  end: number;
}

/** Who ran which blocks, in rows in which nobody stands on anybody else's blocks. */
export function lanesOf(nodes: readonly NodeUsed[]): Part[][] {
  const lanes: Part[][] = [];
  for (const part of partsOf(nodes)) {
    const free = lanes.find((lane) => (lane.at(-1)?.end ?? 0) <= part.first);
    if (free === undefined) lanes.push([part]);
    else free.push(part);
  }
  return lanes;
}

/** Blocks `[first, end)` that more than one node has run: an answer went on with another one. */
export function takenOver(nodes: readonly NodeUsed[]): [number, number][] {
  const counts = new Map<number, number>();
  for (const { first, end } of partsOf(nodes)) {
    for (let block = first; block < end; block++) counts.set(block, (counts.get(block) ?? 0) + 1);
  }
  const shared = [...counts].filter(([, count]) => count > 1).map(([block]) => block);
  const ranges: [number, number][] = [];
  for (const block of shared.sort((one, other) => one - other)) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === block) last[1] = block + 1;
    else ranges.push([block, block + 1]);
  }
  return ranges;
}

function partsOf(nodes: readonly NodeUsed[]): Part[] {
  const parts = nodes.flatMap((node) => {
    const [first] = node.layers;
    const last = node.layers.at(-1);
    return first === undefined || last === undefined ? [] : [{ node, first, end: last + 1 }];
  });
  return parts.sort((one, other) => one.first - other.first || one.end - other.end);
}
