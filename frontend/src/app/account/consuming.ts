import type { Usage } from "farlabs";
import type { Point, Series } from "@/components/charts/series";
import { count, far, short } from "@/lib/format";

export type Line = Usage["usage"][number];

export const MEASURES = {
  cost: { name: "Cost", of: (line: Line) => line.cost_units, format: far },
  tokens: { name: "Tokens", of: (line: Line) => line.prompt_tokens + line.completion_tokens, format: count },
  requests: { name: "Requests", of: (line: Line) => line.requests, format: count },
} as const;
export type Measure = keyof typeof MEASURES;

export const CUTS = { model: "Model", key: "API key" } as const;
export type Cut = keyof typeof CUTS;

const NO_KEY = "";

/** A bar for each day (UTC) of the time, a colour for each model or key, the largest first. */
export function chartOf(lines: readonly Line[], time: { from: string; to: string }, cut: Cut, measure: Measure): { series: Series[]; points: Point[] } {
  const { of } = MEASURES[measure];
  const names = new Map<string, string>();
  const totals = new Map<string, number>();
  const days = new Map<string, Map<string, number>>();
  for (const line of lines) {
    const key = cut === "model" ? line.model_id : (line.api_key_id ?? NO_KEY);
    const value = of(line);
    names.set(key, cut === "model" ? line.model_id : keyName(line));
    totals.set(key, (totals.get(key) ?? 0) + value);
    const day = days.get(line.date) ?? new Map<string, number>();
    day.set(key, (day.get(key) ?? 0) + value);
    days.set(line.date, day);
  }
  const keys = [...totals].sort(([a, one], [b, other]) => other - one || a.localeCompare(b)).map(([key]) => key);
  if (keys.length === 0) return { series: [], points: [] };
  return {
    series: keys.map((key) => ({ key: `of ${key}`, name: names.get(key) ?? key })),
    points: daysOf(time).map((at) => ({ at, values: Object.fromEntries(keys.map((key) => [`of ${key}`, days.get(at)?.get(key) ?? 0])) })),
  };
}

function keyName({ api_key_id: id, api_key_name: name }: Line): string {
  if (id === null) return "the wallet itself";
  return name ?? `${short(id, 8, 4)} (revoked)`;
}

/** All days of UTC from one to the other, both included. */
export function daysOf({ from, to }: { from: string; to: string }): string[] {
  const days: string[] = [];
  for (let at = Date.parse(`${from}T00:00:00Z`); at <= Date.parse(`${to}T00:00:00Z`); at += 86_400_000) {
    days.push(new Date(at).toISOString().slice(0, 10));
  }
  return days;
}

/** The first and the last of so many days of UTC, of which the last is today. */
export function lastDays(days: number, now: number): { from: string; to: string } {
  return { from: new Date(now - (days - 1) * 86_400_000).toISOString().slice(0, 10), to: new Date(now).toISOString().slice(0, 10) };
}
