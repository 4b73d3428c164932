// Draws the land of the Earth (Natural Earth, public domain, 1:110 million) into public/world.svg, which is kept: to draw it
// again, `npm install --no-save world-atlas@2.0.2 topojson-client@3.1.0 && node frontend/scripts/outline.mjs`.
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { feature } from "topojson-client";
import { HEIGHT, project, WIDTH } from "../src/components/network/projection.ts";

const SMALLEST_AREA = 6; // of the frame's 1000 by some 500: smaller islands would be specks
const SMALLEST_STEP = 1.5;
const ANTARCTIC = -60;

const atlas = JSON.parse(await readFile(createRequire(import.meta.url).resolve("world-atlas/land-110m.json"), "utf8"));
const { features } = feature(atlas, atlas.objects.land);
const rings = features
  .flatMap(({ geometry }) => geometry.coordinates)
  .flatMap((polygon) => polygon)
  .filter((ring) => ring.some(([, latitude]) => latitude > ANTARCTIC))
  .flatMap(cut)
  .map((ring) => thinned(ring.map(([longitude, latitude]) => project(latitude, longitude))))
  .filter((ring) => area(ring) > SMALLEST_AREA);

const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}"><path d="${rings.map(drawn).join("")}"/></svg>\n`;
await writeFile(new URL("../public/world.svg", import.meta.url), svg);
console.log(`public/world.svg: ${rings.length} pieces of land, ${svg.length} bytes`);

/** What lies beyond the antimeridian becomes a ring of its own, on the other side of the map. */
function cut(ring) {
  let turns = 0;
  const unwound = ring.map(([longitude, latitude], at) => {
    if (at > 0) turns -= Math.round((longitude - ring[at - 1][0]) / 360);
    return [longitude + 360 * turns, latitude];
  });
  const pieces = [-360, 0, 360].map((shift) => {
    const moved = unwound.map(([longitude, latitude]) => [longitude + shift, latitude]);
    return clipped(clipped(moved, 180, 1), -180, -1);
  });
  return pieces.filter((piece) => piece.length > 2);
}

/** What of a ring is on one side of a meridian (Sutherland and Hodgman): west of it for 1, east for -1. */
function clipped(ring, meridian, side) {
  const isIn = ([longitude]) => side * longitude <= side * meridian;
  return ring.flatMap((point, at) => {
    const before = ring.at(at - 1);
    if (isIn(point) === isIn(before)) return isIn(point) ? [point] : [];
    const part = (meridian - before[0]) / (point[0] - before[0]);
    const crossing = [meridian, before[1] + part * (point[1] - before[1])];
    return isIn(point) ? [crossing, point] : [crossing];
  });
}

/** Without points that are hardly away from the one before. */
function thinned(ring) {
  const kept = [];
  for (const point of ring) {
    const last = kept.at(-1);
    if (last === undefined || Math.hypot(point[0] - last[0], point[1] - last[1]) > SMALLEST_STEP) kept.push(point);
  }
  return kept;
}

/** By the shoelace formula. */
function area(ring) {
  const twice = ring.reduce((sum, [x, y], at) => {
    const [nextX, nextY] = ring[(at + 1) % ring.length];
    return sum + x * nextY - nextX * y;
  }, 0);
  return Math.abs(twice) / 2;
}

/** Steps of half a unit, from point to point: a third of the size of positions. */
function drawn(ring) {
  let [x, y] = [0, 0];
  const steps = ring.map((point, at) => {
    const [dx, dy] = [Math.round((point[0] - x) * 2) / 2, Math.round((point[1] - y) * 2) / 2];
    [x, y] = [x + dx, y + dy];
    return `${at === 0 ? "M" : "l"}${dx}${dy < 0 ? "" : ","}${dy}`;
  });
  return `${steps.join("")}z`;
}
