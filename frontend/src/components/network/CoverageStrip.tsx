import { blocks, type Coverage, nodes, strip } from "./network";

const MOST_BRICKS = 4;
/** Of so many blocks each is drawn; of more only the stretches that equally many nodes serve. */
const MOST_BLOCKS = 40;

/** The blocks of a model from the first to the last: a brick for each node that serves them, and nothing where none does. */
export function CoverageStrip({ name, coverage, blockCount }: { name: string; coverage: Coverage; blockCount: number }) {
  return (
    <div role="img" aria-label={`Who serves the blocks of ${name}: ${strip(coverage)}`}>
      <div className="flex h-12 gap-px">
        {(blockCount <= MOST_BLOCKS ? coverage.flatMap(single) : coverage).map(({ first_block: first, end_block: end, replicas }) => (
          <div
            key={first}
            title={`${blocks(first, end)}: ${replicas === 0 ? "no node" : nodes(replicas)}`}
            style={{ flexGrow: end - first, flexBasis: 0 }}
            className={`flex min-w-1 flex-col justify-end gap-0.5 rounded-xs ${replicas === 0 ? "border-2 border-dashed border-bad" : ""}`}
          >
            {Array.from({ length: Math.min(replicas, MOST_BRICKS) }, (_, brick) => (
              <span key={brick} className="h-[calc((100%-0.375rem)/4)] rounded-xs bg-brand" />
            ))}
          </div>
        ))}
      </div>
      <div className="mt-1 flex justify-between text-xs text-soft tabular-nums">
        <span>block 0</span>
        {blockCount > 1 && <span>{blockCount - 1}</span>}
      </div>
    </div>
  );
}

/** A stretch block by block; a hole stays in one piece. */
function single(stretch: Coverage[number]): Coverage {
  const { first_block: first, end_block: end, replicas } = stretch;
  if (replicas === 0) return [stretch];
  return Array.from({ length: end - first }, (_, at) => ({ first_block: first + at, end_block: first + at + 1, replicas }));
}
