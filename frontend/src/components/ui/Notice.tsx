import type { ReactNode } from "react";

const EDGES = { info: "border-l-brand", good: "border-l-good", warn: "border-l-warn", bad: "border-l-bad" } as const;

interface NoticeProps {
  kind: keyof typeof EDGES;
  title: string;
  children?: ReactNode;
}

/** Something to know. What went wrong is read out at once. */
export function Notice({ kind, title, children }: NoticeProps) {
  return (
    <div
      role={kind === "bad" ? "alert" : "status"}
      className={`rounded-md border border-l-4 border-line bg-surface p-4 text-sm ${EDGES[kind]}`}
    >
      <p className="font-medium">{title}</p>
      {children !== undefined && <div className="mt-1 text-soft">{children}</div>}
    </div>
  );
}
