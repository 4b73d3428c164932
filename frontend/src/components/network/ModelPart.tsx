"use client";

import type { UseQueryResult } from "@tanstack/react-query";
import type { ActiveNodes, Model } from "farlabs";
import { type ReactNode, useState } from "react";
import { Badge } from "@/components/ui/Badge";
import { Empty } from "@/components/ui/Empty";
import { Query } from "@/components/ui/Query";
import { count, far, milliseconds, percent } from "@/lib/format";
import { CoverageStrip } from "./CoverageStrip";
import { sentenceOf } from "./network";
import { NodesTable } from "./NodesTable";

/** A model on sale: who serves which blocks of it, and what it costs. */
export function ModelPart({ model, found }: { model: Model; found: UseQueryResult<ActiveNodes> | undefined }) {
  const { id, name, coverage, block_count: blockCount } = model;
  const [isOpen, setOpen] = useState(false);
  const isWhole = coverage.every(({ replicas }) => replicas > 0);
  return (
    <section aria-label={name} className="border-t border-line py-5 first:border-0 first:pt-0 last:pb-0">
      <div className="mb-1 flex flex-wrap items-baseline gap-x-3 gap-y-1">
        <h3 className="font-semibold">{name}</h3>
        {name !== id && <span className="font-mono text-sm break-all text-soft">{id}</span>}
        {model.available ? <Badge kind="good">Available</Badge> : <Badge kind="bad">Not available</Badge>}
        {model.price_multiplier > 1 && <Badge kind="warn">Price × {model.price_multiplier} for demand</Badge>}
      </div>
      <p className="mb-3 text-sm text-soft">
        {sentenceOf(coverage, blockCount)}
        {isWhole && model.reason !== null && ` Not available: ${model.reason}.`}
      </p>
      <CoverageStrip name={name} coverage={coverage} blockCount={blockCount} />
      <dl className="mt-4 grid grid-cols-2 gap-x-6 gap-y-3 text-sm sm:grid-cols-3 lg:grid-cols-6">
        <Fact name="Nodes">{count(model.active_nodes)}</Fact>
        <Fact name="1,000 tokens of prompt">{far(1_000 * model.prompt_price_units)}</Fact>
        <Fact name="1,000 tokens of answer">{far(1_000 * model.completion_price_units)}</Fact>
        <Fact name="Load">{percent(model.utilisation)}</Fact>
        <Fact name="An answer takes">{model.avg_latency_ms === null ? "not measured" : milliseconds(model.avg_latency_ms)}</Fact>
        <Fact name="Context">{count(model.context_length)} tokens</Fact>
      </dl>
      {found !== undefined && (
        <details className="mt-3 text-sm" onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary className="w-fit cursor-pointer rounded-md py-2 text-soft hover:text-ink">Nodes of {name}</summary>
          <div className="mt-2">
            {isOpen && (
              <Query what={`The nodes of ${name}`} query={found}>
                {(nodes) => (nodes.count === 0 ? <Empty title="No node serves this model now" /> : <NodesTable model={name} found={nodes} />)}
              </Query>
            )}
          </div>
        </details>
      )}
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="flex flex-col justify-between">
      <dt className="text-soft">{name}</dt>
      <dd className="font-medium tabular-nums">{children}</dd>
    </div>
  );
}
