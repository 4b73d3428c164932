import type { NodeUsed } from "farlabs";
import { blocks } from "@/components/network/network";
import { type Column, Table } from "@/components/ui/Table";
import { count, far, short } from "@/lib/format";
import { type Bill, lanesOf, takenOver } from "./bill";

const COLOURS = 6;

const COLUMNS: readonly Column<NodeUsed>[] = [
  { name: "Node", cell: ({ node_id: id }) => <span title={id} className="font-mono">{short(id)}</span> },
  { name: "Blocks", cell: ({ layers }) => blocks(layers[0] ?? 0, (layers.at(-1) ?? -1) + 1) },
  { name: "Weights", cell: ({ quantization }) => (quantization === "none" ? "not quantized" : quantization) },
  { name: "Token-layers", cell: ({ token_layers: layers }) => count(layers), isNumber: true },
  { name: "Paid", cell: ({ paid_units: units }) => <span title={`${count(units)} units of 1e-9 FAR`}>{far(units)}</span>, isNumber: true },
];

/** Which nodes ran which blocks of an answer, and what each of them gets for it. */
export function ServedBy({ bill, blockCount }: { bill: Bill; blockCount: number | undefined }) {
  const shared = takenOver(bill.nodes);
  return (
    <div className="flex flex-col gap-3">
      <Strip nodes={bill.nodes} blockCount={blockCount} />
      {shared.length > 0 && (
        <p>
          More than one node ran {shared.map(([first, end]) => blocks(first, end)).join(", ")}: the answer went on with another one on the
          way.
        </p>
      )}
      <Table
        caption="The nodes that ran this answer"
        columns={COLUMNS}
        rows={bill.nodes}
        keyOf={({ node_id: id, layers }) => `${id} ${layers[0]}`}
      />
      <p className="text-soft">
        Of {far(bill.costUnits)}, the nodes get {far(bill.nodes.reduce((sum, { paid_units: units }) => sum + units, 0))} by the work they
        have signed for, and the marketplace {far(bill.feeUnits)}.
      </p>
    </div>
  );
}

/** The same as a picture; the table has all that is in it. */
function Strip({ nodes, blockCount }: { nodes: readonly NodeUsed[]; blockCount: number | undefined }) {
  const lanes = lanesOf(nodes);
  const width = Math.max(blockCount ?? 0, ...lanes.flat().map(({ end }) => end));
  const colours = new Map([...new Set(nodes.map(({ node_id: id }) => id))].map((id, place) => [id, (place % COLOURS) + 1]));
  return (
    <div aria-hidden="true" className="flex flex-col gap-1">
      {lanes.map((lane, place) => (
        <div key={place} className="grid gap-y-1" style={{ gridTemplateColumns: `repeat(${width}, minmax(0, 1fr))` }}>
          {lane.map(({ node, first, end }) => (
            <div
              key={`${node.node_id} ${first}`}
              title={`${blocks(first, end)}: ${node.node_id}`}
              style={{ gridColumn: `${first + 1} / ${end + 1}`, borderTopColor: `var(--chart-${colours.get(node.node_id)})` }}
              className="min-w-0 truncate border-t-8 px-1 pt-1 text-xs text-soft"
            >
              {short(node.node_id)}
            </div>
          ))}
        </div>
      ))}
    </div>
  );
}
