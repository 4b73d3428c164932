/** Holds the place of what is on its way. */
export function Skeleton({ className = "h-5 w-32" }: { className?: string }) {
  return <span aria-hidden="true" className={`block animate-pulse rounded-md bg-raised ${className}`} />;
}

/** The same for a whole part of a page, with a word for who cannot see it. */
export function Loading({ what, lines = 3 }: { what: string; lines?: number }) {
  return (
    <div role="status" className="flex flex-col gap-3">
      <span className="sr-only">Loading {what}</span>
      {Array.from({ length: lines }, (_, line) => (
        <Skeleton key={line} className={`h-5 ${line % 2 === 0 ? "w-full" : "w-2/3"}`} />
      ))}
    </div>
  );
}
