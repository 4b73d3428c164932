"use client";

import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ErrorState } from "./ErrorState";
import { Loading } from "./Skeleton";
import { Notice } from "./Notice";

interface QueryProps<T> {
  /** What is asked for, in words that begin a sentence, such as "Your balance". */
  what: string;
  query: UseQueryResult<T>;
  /** While it is on its way for the first time. */
  loading?: ReactNode;
  children: (data: T) => ReactNode;
}

/** The states of something that comes from the gateway, in one place: on its way, failed, there, there but old. */
export function Query<T>({ what, query, loading, children }: QueryProps<T>) {
  const { data, error, isPending, refetch } = query;
  if (isPending) return loading ?? <Loading what={what} />;
  if (data === undefined) return <ErrorState what={what} error={error} onRetry={() => void refetch()} />;
  return (
    <>
      {error !== null && (
        <div className="mb-4">
          <Notice kind="warn" title="This is not up to date">
            The gateway does not answer at the moment. What is shown is what it said last.
          </Notice>
        </div>
      )}
      {children(data)}
    </>
  );
}
