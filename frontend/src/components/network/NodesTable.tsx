import type { ActiveNode, ActiveNodes } from "farlabs";
import { type Column, Table } from "@/components/ui/Table";
import { far, milliseconds, percent, short } from "@/lib/format";
import { blocks, PARTS } from "./network";

const NOT_MEASURED = "not measured";

const COLUMNS: Column<ActiveNode>[] = [
  { name: "Node", cell: ({ node_id: id }) => <span title={id} className="font-mono">{short(id, 8, 6)}</span> },
  { name: "Blocks", cell: ({ layers_served: layers }) => blocks(layers[0] ?? 0, (layers.at(-1) ?? 0) + 1) },
  { name: "Weights", cell: ({ quantization }) => (quantization === "none" ? "as they are" : quantization) },
  { name: "Place", cell: ({ location, part }) => location ?? PARTS[part ?? ""]?.name ?? "unknown" },
  { name: "Load", isNumber: true, cell: ({ load }) => percent(load) },
  { name: "Round trip", isNumber: true, cell: ({ avg_latency_ms: ms }) => (ms === null ? NOT_MEASURED : milliseconds(ms)) },
  { name: "Reliability", isNumber: true, cell: ({ reliability_score: score }) => (score === null ? NOT_MEASURED : percent(score)) },
  {
    name: "Asks",
    isNumber: true,
    cell: ({ price_units: units }) => <span title={`${units} × 10⁻⁹ FAR for 1,000 tokens in one block`}>{far(units)}</span>,
  },
];

/** Who serves a model now, one by one. */
export function NodesTable({ model, found }: { model: string; found: ActiveNodes }) {
  return (
    <>
      <Table caption={`Nodes that serve ${model}`} columns={COLUMNS} rows={found.nodes} keyOf={({ node_id: id }) => id} />
      <p className="mt-2 text-xs text-soft">
        {found.total_nodes > found.count && `The first ${found.count} of ${found.total_nodes}. `}
        Load and what a node asks (for 1,000 tokens in one block) are its own word; the round trip is what this gateway has
        measured, the reliability what all gateways of this marketplace have seen.
      </p>
    </>
  );
}
