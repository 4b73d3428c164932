"use client";

import type { Model, ModelToServe } from "farlabs";
import { CoverageStrip } from "@/components/network/CoverageStrip";
import { blocks } from "@/components/network/network";
import { Card } from "@/components/ui/Card";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Notice } from "@/components/ui/Notice";
import { count, far, percent, when } from "@/lib/format";
import { gatewayUrl } from "@/lib/gateway";
import { estimate, quoted, type Range } from "./serving";

const BPS = 10_000;

interface EarningsProps {
  model: ModelToServe;
  /** The same on the list of what is sold; undefined while that is not there. */
  onSale: Model | undefined;
  range: Range | undefined;
  replicas: readonly number[];
}

/** What such a node would have earned in the week that has passed, from what was asked and paid in it. */
export function Earnings({ model, onSale, range, replicas }: EarningsProps) {
  const { last_week: week, model_id: id } = model;
  const found = onSale === undefined ? undefined : estimate(week, range, replicas);
  return (
    <Card title="What it could earn">
      {found === undefined ? (
        <Notice kind="info" title="Prices and nodes are not known at the moment">They come as soon as the gateway tells them.</Notice>
      ) : "reason" in found ? (
        <Notice kind="info" title="Nobody can say">{found.reason}</Notice>
      ) : (
        <p aria-live="polite">
          <span className="text-2xl font-semibold tabular-nums">
            {found.low === found.high ? far(found.low) : `${far(found.low)} to ${far(found.high)}`}
          </span>{" "}
          <span className="text-soft">in a week like the last one. An estimate and no promise.</span>
        </p>
      )}
      <dl className="mt-4 grid gap-x-6 gap-y-3 text-sm sm:grid-cols-2">
        <Fact name="Asked in the last seven days">
          {count(week.requests)} {week.requests === 1 ? "request" : "requests"}, {count(week.tokens)} tokens{week.since !== null && ` (the first on ${when(week.since)})`}
        </Fact>
        <Fact name="Paid to its nodes for that, together">
          <span title={`${week.node_units} units of 1e-9 FAR`}>{far(week.node_units)}</span>
        </Fact>
        {onSale !== undefined && (
          <>
            <Fact name="Price of 1,000 tokens of an answer, now">{far(onSale.completion_price_units * 1000)}</Fact>
            <Fact name="Of that for the nodes">{percent((BPS - onSale.fee_bps) / BPS)}</Fact>
            <Fact name="Nodes that serve it now">{count(onSale.active_nodes)}</Fact>
            <Fact name="Demand now, of what they can carry">{percent(onSale.utilisation)}</Fact>
          </>
        )}
      </dl>
      {onSale !== undefined && (
        <div className="mt-4">
          <CoverageStrip name={id} coverage={onSale.coverage} blockCount={onSale.block_count} />
          {range !== undefined && <p className="mt-2 text-sm text-soft">Your node would go to {blocks(...range)}, where one more is worth most.</p>}
        </div>
      )}
      <details className="mt-4 text-sm">
        <summary className="w-fit cursor-pointer rounded-md py-2 text-soft hover:text-ink">How this is reckoned</summary>
        <div className="mt-2 flex max-w-prose flex-col gap-3">
          <p className="rounded-md bg-raised p-3 font-mono text-xs">
            paid to nodes in 7 days ÷ blocks of the model × Σ over your blocks of 1 ÷ (nodes that serve the block now + 1)
          </p>
          <ul className="flex list-disc flex-col gap-1 pl-5 text-soft">
            <li>The lower number shares the work on your blocks evenly with those who serve them now; the higher is all the work on them.</li>
            <li>The next week is as the last: as many requests, at the same prices. Both change.</li>
            <li>Your node runs all the time, is as fast as the others, and is as near to those who ask: faster and nearer ones get more.</li>
            <li>Electricity, your internet connection and gas are not in it.</li>
          </ul>
          <p className="text-soft">How fast your machine is, measured on it, and what that is worth:</p>
          <CodeBlock code={`far-node info hardware --gateway ${quoted(gatewayUrl())}`} what="the command that measures your machine" />
        </div>
      </details>
    </Card>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt className="text-soft">{name}</dt>
      <dd className="tabular-nums">{children}</dd>
    </div>
  );
}
