"use client";

import { ConnectionError, FarLabsError } from "farlabs";
import { useOnline } from "@/lib/useOnline";
import { explain } from "@/lib/explain";
import { Button } from "./Button";
import { Notice } from "./Notice";

interface ErrorStateProps {
  /** What could not be had, such as "your balance". */
  what: string;
  error: unknown;
  onRetry?: () => void;
}

/** What could not be loaded, why, and what to do. Whoever is offline is told that and not that something broke. */
export function ErrorState({ what, error, onRetry }: ErrorStateProps) {
  const isOnline = useOnline();
  if (!isOnline && error instanceof ConnectionError) {
    return (
      <Notice kind="warn" title="You are offline">
        {what} will be loaded when the connection is back.
      </Notice>
    );
  }
  const id = error instanceof FarLabsError ? error.requestId : undefined;
  return (
    <Notice kind="bad" title={`${what} could not be loaded`}>
      <p>{error instanceof ConnectionError ? "The gateway does not answer. Is it running?" : explain(error)}</p>
      {id !== undefined && <p className="mt-1 font-mono text-xs">{id}</p>}
      {onRetry !== undefined && (
        <Button kind="quiet" className="mt-3" onClick={onRetry}>
          Try again
        </Button>
      )}
    </Notice>
  );
}
