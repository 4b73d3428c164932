import { expect, test } from "vitest";
import { COLOURS, dayOf, fold, OTHERS, type Point, sum } from "@/components/charts/series";

const eight = Array.from({ length: 8 }, (_, place) => ({ key: `node.${place}`, name: `Node ${place}` }));
const points: Point[] = [
  { at: "2026-11-20", values: Object.fromEntries(eight.map(({ key }, place) => [key, place])) },
  { at: "2026-11-21", values: { "node.0": 100, "node.1": null } },
];

test("up to as many series as there are colours stay as they are", () => {
  const few = eight.slice(0, COLOURS);
  expect(fold(few, points)).toEqual({ series: few, points });
});

test("of more series the largest stay and the rest become one", () => {
  const { series, points: drawn } = fold(eight, points);
  expect(series.map(({ key }) => key)).toEqual(["node.0", "node.4", "node.5", "node.6", "node.7", OTHERS]);
  expect(series.at(-1)?.name).toBe("3 others");
  expect(drawn.map(({ values }) => values[OTHERS])).toEqual([1 + 2 + 3, 0]);
});

test("nothing is lost when series are put together", () => {
  const { series, points: drawn } = fold(eight, points);
  expect(drawn.map((point) => sum(point, series))).toEqual(points.map((point) => sum(point, eight)));
});

test("a day is that of UTC wherever one looks from", () => {
  expect(dayOf("2026-11-21")).toBe("Nov 21");
});
