"use client";

import type { ReactNode } from "react";
import { Bar, BarChart, CartesianGrid, Line, LineChart, Tooltip, XAxis, YAxis } from "recharts";
import { colour, type Point, type Series } from "./series";

interface DrawingProps {
  kind: "bars" | "lines";
  series: readonly Series[];
  points: readonly Point[];
  nameOf: (at: string) => string;
  format: (value: number) => string;
  formatTick: (value: number) => string;
}

/** The drawn half of a chart; loaded when it is needed. */
export default function Drawing({ kind, series, points, nameOf, format, formatTick }: DrawingProps) {
  const ticks = { stroke: "var(--line)", tick: { fill: "var(--soft)", fontSize: 12 } };
  const around = (
    <>
      <CartesianGrid stroke="var(--line)" vertical={false} />
      <XAxis dataKey="at" tickFormatter={nameOf} tickLine={false} minTickGap={24} {...ticks} />
      <YAxis tickFormatter={formatTick} tickLine={false} axisLine={false} width="auto" {...ticks} />
      <Tooltip
        isAnimationActive={false}
        cursor={kind === "bars" ? { fill: "var(--raised)" } : { stroke: "var(--line)" }}
        content={({ active, label }) => {
          const point = active ? points.find(({ at }) => at === label) : undefined;
          return point === undefined ? null : <Told name={nameOf(point.at)} point={point} series={series} format={format} />;
        }}
      />
    </>
  );
  const frame = {
    // a copy: the library wants an array that it could change
    data: [...points],
    responsive: true,
    accessibilityLayer: false, // the table is for that; this is hidden from screen readers
    style: { width: "100%", height: "100%" },
    margin: { top: 8, right: 8, bottom: 0, left: 0 },
  };
  if (kind === "bars") {
    return (
      <BarChart {...frame}>
        {around}
        {series.map(({ key, name }, place) => (
          <Bar key={key} name={name} dataKey={valueOf(key)} stackId="all" fill={colour(place)} maxBarSize={48} isAnimationActive={false} />
        ))}
      </BarChart>
    );
  }
  return (
    <LineChart {...frame}>
      {around}
      {series.map(({ key, name }, place) => (
        <Line key={key} name={name} dataKey={valueOf(key)} stroke={colour(place)} strokeWidth={2} dot={points.length < 3} isAnimationActive={false} />
      ))}
    </LineChart>
  );
}

/** Keys may have dots in them, which would be read as a path. */
function valueOf(key: string): (point: Point) => number | null {
  return (point) => point.values[key] ?? null;
}

function Told({ name, point, series, format }: { name: ReactNode; point: Point; series: readonly Series[]; format: (value: number) => string }) {
  return (
    <div className="rounded-md border border-line bg-surface p-3 text-xs shadow-lg">
      <p className="mb-1 font-medium">{name}</p>
      {series.map(({ key, name: what }, place) => {
        const value = point.values[key];
        return (
          <p key={key} className="flex items-center gap-2 tabular-nums">
            <span className="size-2.5 rounded-xs" style={{ background: colour(place) }} />
            <span className="text-soft">{what}</span>
            <span className="ml-auto">{value === null || value === undefined ? "–" : format(value)}</span>
          </p>
        );
      })}
    </div>
  );
}
