/** What a chart shows and how it is put into few colours. */

export interface Series {
  key: string;
  name: string;
}

/** One place on the axis below: a name that no other point has, such as a day, and a number for each series. */
export interface Point {
  at: string;
  /** By key of the series. Null, or nothing: nobody knows; a line has a gap there. */
  values: Readonly<Record<string, number | null | undefined>>;
}

/** How many colours there are; `--chart-1` and so on in globals.css. */
export const COLOURS = 6;
export const OTHERS = "others";

export function colour(place: number): string {
  return `var(--chart-${(place % COLOURS) + 1})`;
}

export function sum(point: Point, series: readonly Series[]): number {
  return series.reduce((total, { key }) => total + (point.values[key] ?? 0), 0);
}

/** The largest series, and all the rest as one, where there are more of them than colours. */
export function fold(series: readonly Series[], points: readonly Point[]): { series: readonly Series[]; points: readonly Point[] } {
  if (series.length <= COLOURS) return { series, points };
  const sizes = new Map(series.map(({ key }) => [key, points.reduce((total, point) => total + (point.values[key] ?? 0), 0)]));
  const largest = new Set([...sizes].sort(([, one], [, other]) => other - one).slice(0, COLOURS - 1).map(([key]) => key));
  const kept = series.filter(({ key }) => largest.has(key));
  const rest = series.filter(({ key }) => !largest.has(key));
  return {
    series: [...kept, { key: OTHERS, name: `${rest.length} others` }],
    points: points.map((point) => ({ ...point, values: { ...point.values, [OTHERS]: sum(point, rest) } })),
  };
}

/** A day as people write it: `Nov 21`. Days are those of UTC. */
export function dayOf(date: string): string {
  return new Date(`${date}T00:00:00Z`).toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" });
}
