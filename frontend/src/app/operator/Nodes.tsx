"use client";

import { useMutation } from "@tanstack/react-query";
import type { ClusterStatus, RebalanceAdvice } from "farlabs";
import { useState } from "react";
import { blocks, nodes as nodesInWords } from "@/components/network/network";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Empty } from "@/components/ui/Empty";
import { Field, Select } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { type Column, Table } from "@/components/ui/Table";
import { explain } from "@/lib/explain";
import { milliseconds, percent, short } from "@/lib/format";
import { useSession } from "@/lib/session";

type ClusterNode = ClusterStatus["nodes"][number];

const NOT_MEASURED = "not measured";
const MOST_REPLICAS = 16;

/** Who serves what, and who would do more good where. */
export function Nodes({ status }: { status: ClusterStatus }) {
  return (
    <div className="flex flex-col gap-6">
      <Card title="Nodes">
        <Table
          caption="Nodes that are announced, a line for each model"
          columns={COLUMNS}
          rows={status.nodes}
          keyOf={({ node_id: id, model_id: model }) => `${id} ${model}`}
          empty={<Empty title="No node is announced now" />}
        />
        <p className="mt-2 text-xs text-soft">
          Load is a node&apos;s own word. The score is what all gateways of this marketplace have seen of it, the round trip what
          this one has measured.
        </p>
      </Card>
      <Advice models={status.models.map(({ model_id: id }) => id)} />
    </div>
  );
}

const COLUMNS: readonly Column<ClusterNode>[] = [
  { name: "Node", cell: ({ node_id: id }) => <span title={id} className="font-mono text-xs">{short(id, 8, 6)}</span> },
  { name: "Wallet", cell: ({ wallet_address: wallet }) => <span title={wallet} className="font-mono text-xs">{short(wallet)}</span> },
  { name: "Model", cell: ({ model_id: model }) => <span className="break-all">{model}</span> },
  { name: "Blocks", cell: ({ blocks: [first, end] }) => <span className="whitespace-nowrap">{blocks(first, end)}</span> },
  { name: "State", cell: ({ state }) => <Badge kind={state === "announced" ? "good" : "warn"}>{state === "announced" ? "ready" : state}</Badge> },
  { name: "Load", isNumber: true, cell: ({ load, queue_ms: queue }) => <span title={`a queue of ${milliseconds(queue)}`}>{percent(load)}</span> },
  { name: "Score", isNumber: true, cell: ({ reliability_score: score }) => (score === null ? NOT_MEASURED : percent(score)) },
  { name: "Round trip", isNumber: true, cell: ({ latency_ms: ms }) => (ms === null ? NOT_MEASURED : milliseconds(ms)) },
  { name: "Software", cell: ({ software }) => <span className="break-all">{software}</span> },
];

function Advice({ models }: { models: readonly string[] }) {
  const { client } = useSession();
  const [model, setModel] = useState("");
  const [replicas, setReplicas] = useState("2");
  const wanted = Number(replicas);
  const isFine = Number.isInteger(wanted) && wanted >= 1 && wanted <= MOST_REPLICAS;
  const { mutate, data, error, isPending } = useMutation({
    mutationFn: () => client.rebalance({ model: model === "" ? undefined : model, replicas: wanted }),
  });
  return (
    <Card title="Where nodes would do more good">
      <p className="mb-4 max-w-prose text-sm text-soft">
        This is advice: no node is told anything. Owners move their nodes themselves, with the command that stands below, and
        without losing a request.
      </p>
      <form
        className="flex flex-wrap items-end gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          if (isFine) mutate();
        }}
      >
        <div className="w-56">
          <Select label="For the model" value={model} onChange={(event) => setModel(event.target.value)}>
            <option value="">all of them</option>
            {models.map((id) => (
              <option key={id} value={id}>{id}</option>
            ))}
          </Select>
        </div>
        <div className="w-40">
          <Field
            label="Nodes per block"
            type="number"
            min={1}
            max={MOST_REPLICAS}
            required
            value={replicas}
            onChange={(event) => setReplicas(event.target.value)}
            problem={isFine ? undefined : `1 to ${MOST_REPLICAS}`}
          />
        </div>
        <Button type="submit" kind="quiet" disabled={isPending || !isFine}>Ask for advice</Button>
      </form>
      <div aria-live="polite" className="mt-4 flex flex-col gap-4 empty:mt-0">
        {error !== null && <Notice kind="bad" title="There is no advice">{explain(error)}</Notice>}
        {data?.models.map((one) => <Advised key={one.model_id} advice={one} />)}
      </div>
    </Card>
  );
}

function Advised({ advice }: { advice: RebalanceAdvice["models"][number] }) {
  const { model_id: model, thin, moves, lacking, replicas } = advice;
  return (
    <section aria-label={`Advice for ${model}`} className="flex flex-col gap-3 border-t border-line pt-4 text-sm">
      <h3 className="font-semibold break-all">{model}</h3>
      {thin.length === 0 ? (
        <p>Every block has {nodesInWords(replicas)} or more: nothing is to be moved.</p>
      ) : (
        <p>Too few nodes serve {stretches(thin)}.</p>
      )}
      {moves.map(({ node_id: id, blocks: [first, end], to, command }) => (
        <div key={`${id} ${to[0]}`} className="flex flex-col gap-2">
          <p>
            <span title={id} className="font-mono text-xs">{short(id, 8, 6)}</span> serves {blocks(first, end)} and would do more good
            at {blocks(to[0], to[1])}. Its owner would run:
          </p>
          <CodeBlock code={command} what={`the command for ${short(id, 8, 6)}`} />
        </div>
      ))}
      {lacking.length > 0 && <p>No move helps with {stretches(lacking)}: more nodes are needed.</p>}
    </section>
  );
}

function stretches(found: RebalanceAdvice["models"][number]["thin"]): string {
  return found.map(({ first_block: first, end_block: end, replicas }) => `${blocks(first, end)} (${replicas === 0 ? "none" : nodesInWords(replicas)})`).join(", ");
}
