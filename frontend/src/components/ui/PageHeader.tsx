import type { ReactNode } from "react";

/** The heading of a page and a sentence on what it is for. */
export function PageHeader({ title, children, aside }: { title: string; children?: ReactNode; aside?: ReactNode }) {
  return (
    <div className="mb-6 flex flex-wrap items-end justify-between gap-4">
      <div>
        <h1 className="text-3xl font-bold tracking-tight">{title}</h1>
        {children !== undefined && <p className="mt-2 max-w-prose text-soft">{children}</p>}
      </div>
      {aside}
    </div>
  );
}
