import type { Rewards } from "farlabs";
import { percent } from "@/lib/format";
import { partsOf, premiumOf, type Score, sentence } from "./earning";

interface ReliabilityProps {
  score: Score | null;
  /** What would raise it, in the words of the gateway; undefined while that is not there. */
  advice: Rewards["scores"][number]["advice"] | undefined;
}

/** How far a node is trusted, what that is made of, and what would help. */
export function Reliability({ score, advice }: ReliabilityProps) {
  if (score === null) return <p className="mt-3 text-sm text-soft">Reliability: not measured. Nothing was seen of its work yet.</p>;
  const premium = premiumOf(score);
  return (
    <details className="mt-2 text-sm">
      <summary className="w-fit cursor-pointer rounded-md py-1">
        Reliability: <span className="tabular-nums">{percent(score.value)}</span> <span className="text-soft">and why</span>
      </summary>
      <dl className="mt-2 grid gap-x-6 gap-y-4 sm:grid-cols-2 lg:grid-cols-4">
        {partsOf(score).map(({ name, value, seen }) => (
          <div key={name}>
            <dt className="text-soft">{name}</dt>
            <dd className="tabular-nums">{percent(value)}</dd>
            <dd aria-hidden="true" className="my-1 h-1.5 overflow-hidden rounded-full bg-raised">
              <span className="block h-full rounded-full bg-brand" style={{ width: `${100 * value}%` }} />
            </dd>
            <dd className="text-soft">{seen}</dd>
          </div>
        ))}
      </dl>
      <p className="mt-3 max-w-prose text-soft">
        Multiplied, the four make {percent(score.value)}: the more, the more work comes to it. What is older counts for less, half after a week.{" "}
        {premium}
      </p>
      {advice !== undefined && advice.length > 0 && (
        <>
          <p className="mt-3 font-medium">What would raise it, what helps most first</p>
          <ul className="mt-1 flex max-w-prose list-disc flex-col gap-1 pl-5 text-soft">
            {advice.map((one) => (
              <li key={one}>{sentence(one)}</li>
            ))}
          </ul>
        </>
      )}
    </details>
  );
}
