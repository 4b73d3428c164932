import type { Tiers } from "farlabs";
import { count, percent } from "@/lib/format";

export type Tier = Tiers["tiers"][number];

/** On which nodes a tier runs. */
export function nodesOf({ node_pool: pool, min_reliability: least }: Pick<Tier, "node_pool" | "min_reliability">): string {
  if (pool === "private") return "nodes that the operator has named for the account";
  if (pool === "reliable") return `nodes that were seen to be reliable (${least ?? "–"} or more of 1)`;
  return "all nodes that serve the model";
}

/** What a tier costs against the standard one. */
export function priceOf({ price_factor_bps: bps }: Pick<Tier, "price_factor_bps">): string {
  if (bps === null) return "a price of its own for each model";
  return bps === 10_000 ? "the listed price" : `${bps / 10_000} times the listed price`;
}

/** What a tier promises, and what follows when that is missed. */
export function promiseOf({ p95_ms_per_token: ms, credit_bps: credit }: Pick<Tier, "p95_ms_per_token" | "credit_bps">): string {
  if (ms === null || ms === undefined) return "no promise of speed";
  return `95 of 100 tokens within ${count(ms)} ms; a request that misses it gives back ${percent((credit ?? 0) / 10_000)} of its cost`;
}

/** How much an account of the tier can ask for. */
export function limitsOf(tier: Pick<Tier, "requests_per_minute" | "tokens_per_minute" | "concurrent_requests" | "max_tokens">): string {
  const parts = [
    limit(tier.requests_per_minute, "requests a minute"),
    limit(tier.tokens_per_minute, "tokens a minute"),
    limit(tier.concurrent_requests, "requests at once"),
    limit(tier.max_tokens, "tokens an answer"),
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? "no limits" : parts.join(", ");
}

function limit(value: number | null, what: string): string | undefined {
  return value === null ? undefined : `${count(value)} ${what}`;
}
