"use client";

import { useNow } from "@/lib/useNow";
import { queueInWords } from "./queue";
import type { Live } from "./useAnswering";

const SILENT_SECONDS = 4;

/** What is going on while an answer is on its way: how long one waits, and for what. */
export function Activity({ live, hasText }: { live: Live; hasText: boolean }) {
  const now = useNow(true);
  const silent = Math.max(0, Math.floor((now - live.heardAt) / 1000));
  if (!hasText) {
    return (
      <p className="flex items-center gap-2 text-sm text-soft">
        <span aria-hidden="true" className="size-2 animate-pulse rounded-full bg-brand" />
        <span>
          <span role="status">{queueInWords(live.place)}</span>
          <span className="tabular-nums" aria-hidden="true">: {silent} s</span>
        </span>
      </p>
    );
  }
  if (silent < SILENT_SECONDS) return null;
  return (
    <p className="text-sm text-soft">
      Nothing has come for <span className="tabular-nums">{silent}</span> s. When a node is lost, another one takes over its blocks and the
      answer goes on by itself.
    </p>
  );
}
