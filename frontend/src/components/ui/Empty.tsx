import type { ReactNode } from "react";

/** Nothing is there yet: what would be, and how it comes. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="rounded-lg border border-dashed border-line px-6 py-10 text-center">
      <p className="font-medium">{title}</p>
      {children !== undefined && <div className="mx-auto mt-2 max-w-prose text-sm text-soft">{children}</div>}
    </div>
  );
}
