"use client";

import { Notice } from "@/components/ui/Notice";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { titleOf, type Trouble } from "./trouble";

/** Why there is no answer, or not all of it, and what to do. */
export function TroubleNotice({ trouble, hasText }: { trouble: Trouble; hasText: boolean }) {
  const { kind, message, code, requestId } = trouble;
  return (
    <div className="flex flex-col items-start gap-3">
      <div className="w-full">
        <Notice kind="bad" title={titleOf(trouble)}>
          <p>{message}</p>
          {hasText && <p>You can go on from here, or ask again.</p>}
          {requestId !== null && (
            <p className="mt-1 font-mono text-xs break-all">
              {code} · {requestId}
            </p>
          )}
        </Notice>
      </div>
      {kind === "money" && <ButtonLink href="/account" kind="primary">Deposit, or allow more, on your account</ButtonLink>}
    </div>
  );
}
