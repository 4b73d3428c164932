import { formatFar } from "farlabs";
import { far } from "@/lib/format";

/** An amount, and in its title the whole of it. */
export function Amount({ units }: { units: number | bigint | null }) {
  if (units === null) return <span title="The chain does not answer at the moment">not known</span>;
  return <span className="tabular-nums" title={`${formatFar(units)} FAR`}>{far(units)}</span>;
}
