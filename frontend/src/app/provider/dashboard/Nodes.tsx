"use client";

import type { Node, Rewards } from "farlabs";
import { blocks } from "@/components/network/network";
import { Amount } from "@/components/ui/Amount";
import { Badge } from "@/components/ui/Badge";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { CodeBlock, CopyButton } from "@/components/ui/CopyButton";
import { Empty } from "@/components/ui/Empty";
import { count, milliseconds, percent, short, when } from "@/lib/format";
import { gatewayUrl } from "@/lib/gateway";
import { apart, ofOthers, reachedOf, standingOf } from "./earning";
import { Reliability } from "./Reliability";

interface NodesProps {
  nodes: readonly Node[];
  /** Of the last `period` days; undefined while that is not there. */
  rewards: Rewards | undefined;
  period: string;
}

/** Each node: how it is, what it earned, and what would be good for it. */
export function Nodes({ nodes, rewards, period }: NodesProps) {
  const others = ofOthers(rewards?.per_node ?? [], nodes);
  const { here, gone } = apart(nodes);
  const unclaimed = here.filter(({ registered }) => !registered).length;
  return (
    <div className="flex flex-col gap-6">
      {nodes.length === 0 ? (
        <Empty title="No node is claimed for this wallet, and none has served for it">
          <p>Start one with this wallet, or bind one that runs already by <code>far-node claim</code>.</p>
          <div className="mt-4 flex justify-center"><ButtonLink kind="quiet" href="/gpu/distributed">How to start a node</ButtonLink></div>
        </Empty>
      ) : here.length === 0 ? (
        <p className="text-sm text-soft">None of your nodes is there now.</p>
      ) : (
        <List nodes={here} rewards={rewards} period={period} />
      )}
      {unclaimed > 0 && <Unclaimed count={unclaimed} />}
      {gone.length > 0 && (
        <details className="text-sm">
          <summary className="w-fit cursor-pointer rounded-md py-1 text-soft hover:text-ink">
            {gone.length === 1 ? "One node that has served is gone" : `${gone.length} nodes that have served are gone`}
          </summary>
          <div className="mt-3"><List nodes={gone} rewards={rewards} period={period} /></div>
        </details>
      )}
      {others.length > 0 && <Others earned={others} />}
    </div>
  );
}

function List({ nodes, rewards, period }: NodesProps) {
  return (
    <ul className="flex flex-col divide-y divide-line">
      {nodes.map((node) => (
        <li key={node.node_id} className="py-5 first:pt-0 last:pb-0">
          <OneNode node={node} rewards={rewards} period={period} />
        </li>
      ))}
    </ul>
  );
}

function OneNode({ node, rewards, period }: { node: Node; rewards: Rewards | undefined; period: string }) {
  const { word, kind, advice } = standingOf(node);
  const earned = rewards?.per_node.find(({ node_id: id }) => id === node.node_id);
  const standing = rewards?.scores.find(({ node_id: id }) => id === node.node_id);
  const machine = [node.gpu_model, node.vram_gb === null ? null : `${node.vram_gb} GB`, node.location].filter((one) => one !== null);
  return (
    <article aria-label={`Node ${short(node.node_id, 6, 6)}`}>
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <h3 className="font-mono text-sm font-medium" title={node.node_id}>{short(node.node_id, 10, 6)}</h3>
        <Badge kind={kind}>{word}</Badge>
        {!node.registered && <Badge>not claimed</Badge>}
        {machine.length > 0 && <span className="text-sm text-soft">{machine.join(", ")}</span>}
        <span className="ml-auto"><CopyButton text={node.node_id} what={`the id of node ${short(node.node_id, 6, 6)}`} /></span>
      </div>
      {advice !== undefined && <p className="mt-2 max-w-prose text-sm">{advice}</p>}
      <dl className="mt-3 grid grid-cols-2 gap-x-4 gap-y-2 text-sm sm:grid-cols-3 lg:grid-cols-6">
        <Fact name={`Earned in ${period} days`}>{rewards === undefined ? "–" : <Amount units={earned?.earned_units ?? 0} />}</Fact>
        <Fact name="Requests">{rewards === undefined ? "–" : count(earned?.requests ?? 0)}</Fact>
        <Fact name="Tokens">{rewards === undefined ? "–" : count(earned?.tokens ?? 0)}</Fact>
        <Fact name="Round trip">{node.avg_latency_ms === null ? "not measured" : milliseconds(node.avg_latency_ms)}</Fact>
        <Fact name="Reached">{reachedOf(node)}</Fact>
        <Fact name="Last heard of">{when(node.last_seen)}</Fact>
      </dl>
      {node.models.length > 0 && (
        <ul className="mt-2 flex flex-col gap-1 text-sm text-soft">
          {node.models.map(({ model_id: id, blocks: [first, end], block_count: all, quantization, load }) => (
            <li key={id}>
              {id}: {blocks(first, end)} of {all}, {quantization === "none" ? "not quantized" : quantization}, {percent(load)} full
            </li>
          ))}
        </ul>
      )}
      <Reliability score={node.score} advice={standing?.advice} />
    </article>
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

/** They name this wallet and earn for it; that it knows of them nobody has said. */
function Unclaimed({ count: many }: { count: number }) {
  return (
    <div className="flex flex-col gap-3 rounded-lg border border-dashed border-line p-4 text-sm">
      <p className="max-w-prose">
        {many === 1 ? "A node that is not claimed is" : "Nodes that are not claimed are"} paid to you all the same. Claimed, a node is shown
        to others as yours, too, and here before it has earned. On its machine:
      </p>
      <CodeBlock code={`far-node claim --gateway ${gatewayUrl()}`} what="the command that claims a node" />
    </div>
  );
}

/** They have earned for this wallet, and belong to another now. */
function Others({ earned }: { earned: Rewards["per_node"] }) {
  return (
    <div className="flex flex-col gap-3 text-sm">
      <h3 className="font-medium">Earned for this wallet by nodes that are another’s now</h3>
      <ul className="flex flex-col gap-1">
        {earned.map(({ node_id: id, earned_units: units }) => (
          <li key={id} className="flex flex-wrap justify-between gap-x-4">
            <span className="font-mono" title={id}>{short(id, 10, 6)}</span>
            <Amount units={units} />
          </li>
        ))}
      </ul>
    </div>
  );
}
