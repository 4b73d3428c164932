import type { ReactNode } from "react";

const KINDS = { plain: "text-soft border-line", good: "text-good border-good", warn: "text-warn border-warn", bad: "text-bad border-bad" } as const;

/** A state in a word. */
export function Badge({ kind = "plain", children }: { kind?: keyof typeof KINDS; children: ReactNode }) {
  return <span className={`inline-block rounded-full border px-2 py-0.5 text-xs font-medium whitespace-nowrap ${KINDS[kind]}`}>{children}</span>;
}
