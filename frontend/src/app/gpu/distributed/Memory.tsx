"use client";

import { Badge } from "@/components/ui/Badge";
import { CACHE_BYTES, type Device, type Fit, gibibytes, type Quantization, RESERVE_BYTES } from "./serving";

const KINDS: Readonly<Record<Quantization, string>> = { none: "not quantized", int8: "int8", nf4: "nf4 (4 bits)" };

interface MemoryProps {
  found: readonly Fit[];
  /** What the node takes by itself. */
  usual: Quantization;
  chosen: Quantization;
  device: Device;
  onChoose: (kind: Quantization) => void;
}

/** For each kind of weights what the model takes, and how much of it fits. */
export function Memory({ found, usual, chosen, device, onChoose }: MemoryProps) {
  return (
    <fieldset>
      <legend className="text-sm font-medium">Kind of weights</legend>
      <div className="mt-2 flex flex-col gap-2">
        {found.map((fit) => (
          <label
            key={fit.quantization}
            className="flex flex-wrap items-baseline gap-x-3 gap-y-1 rounded-lg border border-line p-3 text-sm has-checked:border-brand"
          >
            <input
              type="radio"
              name="kind"
              checked={fit.quantization === chosen}
              disabled={fit.blocks === 0}
              onChange={() => onChoose(fit.quantization)}
              className="accent-brand"
            />
            <span className="font-medium">{KINDS[fit.quantization]}</span>
            {fit.quantization === usual && <Badge>the node’s own choice</Badge>}
            <span className="text-soft sm:ml-auto" title={`${fit.wholeBytes} bytes`}>
              {gibibytes(fit.wholeBytes)} for all {fit.blockCount} blocks
            </span>
            <span className="w-full tabular-nums sm:w-40 sm:text-right">
              {fit.blocks === 0 ? "no block fits" : fit.blocks === fit.blockCount ? "all blocks fit" : `${fit.blocks} of ${fit.blockCount} blocks fit`}
            </span>
          </label>
        ))}
      </div>
      <p className="mt-2 text-xs text-soft">
        Told from the model’s own dimensions, {device === "cpu" ? "in float32" : "in bfloat16"} where nothing is quantized.{" "}
        {gibibytes(RESERVE_BYTES)} stay free and {gibibytes(CACHE_BYTES)} are for caches, as the node does unless it is told
        otherwise. It need not hold the whole model: others have the rest.
      </p>
    </fieldset>
  );
}
