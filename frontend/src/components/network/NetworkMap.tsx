import { nodes, type Places, type Spot } from "./network";
import { HEIGHT, project, WIDTH } from "./projection";

const SMALLEST_PX = 12;
const LARGEST_PX = 32;

/** Nodes on the world. Hollow: only the part of the world is known. The list beside it says the same in words. */
export function NetworkMap({ places }: { places: Places }) {
  const { spots, parts, unknown } = places;
  const told = parts.map(({ name, count }) => `${name}: ${nodes(count)}`);
  return (
    <div
      role="img"
      aria-label={`Map of the world. ${[...told, `place unknown: ${nodes(unknown)}`].join(", ")}.`}
      className="relative w-full"
      style={{ aspectRatio: `${WIDTH} / ${HEIGHT}` }}
    >
      <div
        className="absolute inset-0 bg-line"
        style={{ mask: "url(/world.svg) center / 100% 100% no-repeat", WebkitMask: "url(/world.svg) center / 100% 100% no-repeat" }}
      />
      {spots.map((spot) => (
        <Dot key={`${spot.latitude},${spot.longitude},${spot.isCoarse}`} spot={spot} />
      ))}
    </div>
  );
}

function Dot({ spot: { latitude, longitude, count, isCoarse, name } }: { spot: Spot }) {
  const [x, y] = project(latitude, longitude);
  const size = Math.min(LARGEST_PX, SMALLEST_PX + 6 * Math.log2(count));
  const look = isCoarse ? "border-3 border-brand bg-surface text-ink" : "bg-brand text-brand-ink ring-2 ring-surface";
  return (
    <span
      title={isCoarse ? `${name}: ${nodes(count)} of which no more is known` : `About ${written(latitude, longitude)}: ${nodes(count)}`}
      className={`absolute grid -translate-1/2 place-items-center rounded-full text-xs font-semibold tabular-nums ${look}`}
      style={{ left: `${(100 * x) / WIDTH}%`, top: `${(100 * y) / HEIGHT}%`, width: size, height: size }}
    >
      {count > 1 && size >= 18 && count}
    </span>
  );
}

function written(latitude: number, longitude: number): string {
  return `${Math.abs(latitude)}° ${latitude < 0 ? "S" : "N"}, ${Math.abs(longitude)}° ${longitude < 0 ? "W" : "E"}`;
}
