"use client";

import dynamic from "next/dynamic";
import { type ReactNode, useId } from "react";
import { Empty } from "@/components/ui/Empty";
import { Skeleton } from "@/components/ui/Skeleton";
import { type Column, Table } from "@/components/ui/Table";
import { colour, fold, type Point, type Series, sum } from "./series";

export type { Point, Series } from "./series";

// The library that draws comes when something is to be drawn: most pages show their text long before.
const Drawing = dynamic(() => import("./Drawing"), { ssr: false, loading: () => <Skeleton className="h-64 w-full" /> });

interface ChartProps {
  /** What is shown, with its unit where all numbers have the same. */
  title: string;
  /** Bars stand on each other: for what adds up. Lines, at most six of them: for what does not. */
  kind: "bars" | "lines";
  series: readonly Series[];
  points: readonly Point[];
  /** What the axis below counts, such as "Day": the head of the first column of the table. */
  axis: string;
  /** The name of a point for eyes; as it is, if nothing is said. */
  nameOf?: (at: string) => string;
  /** A number with its unit. */
  format: (value: number) => string;
  /** The same, shorter, for the axis. */
  formatTick?: (value: number) => string;
  /** Instead of the chart where there are no points. */
  empty?: ReactNode;
}

/** A chart, and the same numbers as a table below: who cannot see or point at the one reads the other. */
export function Chart({ title, kind, series, points, axis, nameOf = (at) => at, format, formatTick = format, empty }: ChartProps) {
  const caption = useId();
  if (points.length === 0) return empty ?? <Empty title="There is nothing to draw yet" />;
  const drawn = kind === "bars" ? fold(series, points) : { series, points };
  const addsUp = kind === "bars" && series.length > 1;
  const columns: Column<Point>[] = [
    { name: axis, cell: (point) => nameOf(point.at) },
    ...series.map(({ key, name }) => ({ name, isNumber: true, cell: (point: Point) => written(point.values[key], format) })),
    ...(addsUp ? [{ name: "Together", isNumber: true, cell: (point: Point) => format(sum(point, series)) }] : []),
  ];
  return (
    <figure aria-labelledby={caption}>
      <figcaption id={caption} className="mb-2 text-sm font-medium">
        {title}
      </figcaption>
      {series.length > 1 && <Legend series={drawn.series} />}
      <div aria-hidden="true" className="h-64">
        <Drawing kind={kind} series={drawn.series} points={drawn.points} nameOf={nameOf} format={format} formatTick={formatTick} />
      </div>
      <details className="mt-2 text-sm">
        <summary className="w-fit cursor-pointer rounded-md py-2 text-soft hover:text-ink">As a table</summary>
        <div className="mt-2 max-h-80 overflow-auto" tabIndex={0} role="region" aria-label={`${title}, as a table`}>
          <Table caption={title} columns={columns} rows={points} keyOf={(point) => point.at} />
        </div>
      </details>
    </figure>
  );
}

function Legend({ series }: { series: readonly Series[] }) {
  return (
    <ul aria-hidden="true" className="mb-2 flex flex-wrap gap-x-4 gap-y-1 text-xs text-soft">
      {series.map(({ key, name }, place) => (
        <li key={key} className="flex items-center gap-1.5">
          <span className="size-2.5 rounded-xs" style={{ background: colour(place) }} />
          {name}
        </li>
      ))}
    </ul>
  );
}

function written(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? "–" : format(value);
}
