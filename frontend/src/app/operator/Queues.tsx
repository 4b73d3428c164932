import type { ClusterStatus } from "farlabs";
import { CoverageStrip } from "@/components/network/CoverageStrip";
import { sentenceOf } from "@/components/network/network";
import { Badge } from "@/components/ui/Badge";
import { Card } from "@/components/ui/Card";
import { count } from "@/lib/format";

type Models = ClusterStatus["models"];

/** In front of each model: who waits, who is served, and how many can be. */
export function Queues({ models }: { models: Models }) {
  return (
    <Card title="Models and their queues">
      <div>
        {models.map((model) => (
          <Queue key={model.model_id} model={model} />
        ))}
      </div>
      <p className="mt-4 text-xs text-soft">Queues are those of the gateway that serves this page.</p>
    </Card>
  );
}

function Queue({ model }: { model: Models[number] }) {
  const { model_id: id, coverage, block_count: blockCount, queue } = model;
  const facts = [
    { name: "Waiting", value: count(queue?.waiting) },
    { name: "Sessions open", value: queue === null ? "–" : `${count(queue.in_use)} of ${count(queue.capacity)}` },
    { name: "Nodes ready", value: model.min_nodes > 1 ? `${count(model.active_nodes)}, needs ${count(model.min_nodes)}` : count(model.active_nodes) },
  ];
  return (
    <section aria-label={id} className="border-t border-line py-5 first:border-0 first:pt-0 last:pb-0">
      <div className="mb-1 flex flex-wrap items-baseline gap-x-3 gap-y-1">
        <h3 className="font-semibold break-all">{id}</h3>
        {model.available ? <Badge kind="good">Available</Badge> : <Badge kind="bad">Not available</Badge>}
      </div>
      <p className="mb-3 text-sm text-soft">
        {sentenceOf(coverage, blockCount)}
        {model.reason !== null && ` ${sentence(model.reason)}`}
      </p>
      <CoverageStrip name={id} coverage={coverage} blockCount={blockCount} />
      <dl className="mt-4 grid grid-cols-2 gap-x-6 gap-y-3 text-sm sm:grid-cols-3">
        {facts.map(({ name, value }) => (
          <div key={name}>
            <dt className="text-soft">{name}</dt>
            <dd className="font-medium tabular-nums">{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function sentence(reason: string): string {
  return `Not available: ${reason}.`;
}
