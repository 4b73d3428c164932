"use client";

import type { Model } from "farlabs";
import { CoverageStrip } from "@/components/network/CoverageStrip";
import { Badge } from "@/components/ui/Badge";
import { Empty } from "@/components/ui/Empty";
import { Select } from "@/components/ui/Field";
import { count, far, milliseconds } from "@/lib/format";
import { priceIn } from "./wishes";

interface ModelPickerProps {
  models: readonly Model[];
  model: Model | undefined;
  tier: string;
  onChange: (id: string) => void;
}

/** Which model is asked, what it costs, and whether it can be had now. */
export function ModelPicker({ models, model, tier, onChange }: ModelPickerProps) {
  if (model === undefined) {
    return <Empty title="No model is on sale">The operator of this gateway has put none up yet.</Empty>;
  }
  return (
    <div className="flex flex-col gap-3 rounded-xl border border-line bg-surface p-5">
      <Select label="Model" value={model.id} onChange={(event) => onChange(event.target.value)}>
        {models.map((one) => (
          <option key={one.id} value={one.id}>
            {one.name} · {perThousand(priceIn(one, tier).completion)}
            {one.available ? "" : " · not available now"}
          </option>
        ))}
      </Select>
      <Facts model={model} tier={tier} />
      <CoverageStrip name={model.name} coverage={model.coverage} blockCount={model.block_count} />
    </div>
  );
}

function Facts({ model, tier }: { model: Model; tier: string }) {
  const { prompt, completion } = priceIn(model, tier);
  return (
    <div className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm text-soft">
      {model.available ? <Badge kind="good">available</Badge> : <Badge kind="warn">not available</Badge>}
      {!model.available && model.reason !== null && <span className="w-full text-warn">Why not: {model.reason}.</span>}
      <span title={`${count(prompt)} units of 1e-9 FAR for a token`}>prompt {perThousand(prompt)}</span>
      <span title={`${count(completion)} units of 1e-9 FAR for a token`}>answer {perThousand(completion)}</span>
      <span>{count(model.active_nodes)} nodes</span>
      <span>context of {count(model.context_length)} tokens</span>
      <span>{model.avg_latency_ms === null ? "latency not measured" : `answers took ${milliseconds(model.avg_latency_ms)} on average`}</span>
    </div>
  );
}

function perThousand(units: number): string {
  return `${far(1000 * units)} per 1,000 tokens`;
}
