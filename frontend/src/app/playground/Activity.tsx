"use client";

import type { Model } from "farlabs";
import { useRef } from "react";
import type { Live } from "./useAnswering";
import { useNow } from "./useNow";

const SILENT_SECONDS = 4;

/** What is going on while an answer is on its way: how long one waits, and what the network does meanwhile. */
export function Activity({ live, hasText, model }: { live: Live; hasText: boolean; model: Model | undefined }) {
  const now = useNow(true);
  const atFirst = useRef(model?.active_nodes);
  const silent = Math.max(0, Math.floor((now - live.heardAt) / 1000));
  const lost = (atFirst.current ?? 0) - (model?.active_nodes ?? 0);
  return (
    <div className="flex flex-col gap-1 text-sm text-soft">
      {!hasText && (
        <p className="flex items-center gap-2">
          <span aria-hidden="true" className="size-2 animate-pulse rounded-full bg-brand" />
          <span>
            Waiting for the first token<span className="tabular-nums" aria-hidden="true">: {silent} s</span>
          </span>
        </p>
      )}
      {hasText && silent >= SILENT_SECONDS && (
        <p>
          Nothing has come for <span className="tabular-nums">{silent}</span> s. When a node is lost, another one takes over its blocks and
          the answer goes on by itself.
        </p>
      )}
      {lost > 0 && (
        <p className="text-warn">
          {lost === 1 ? "A node" : `${lost} nodes`} of this model went away meanwhile. Was it one that works on this answer, the answer goes
          on with another.
        </p>
      )}
    </div>
  );
}
