"use client";

import { useQuery } from "@tanstack/react-query";
import type { Model } from "farlabs";
import type { ReactNode } from "react";
import { ErrorState } from "@/components/ui/ErrorState";
import { count, far, milliseconds } from "@/lib/format";
import { useSession } from "@/lib/session";
import { type Bill, billOfRequest, endInWords, isSettled, tokensPerSecond } from "./bill";
import type { Answer } from "./conversation";
import { Proof } from "./Proof";
import { ServedBy } from "./ServedBy";

const AGAIN_MS = 1_000;

/** Below an answer that is over: how long it took, what it cost, who ran it and what proves it. */
export function AnswerFacts({ answer, model }: { answer: Answer; model: Model | undefined }) {
  const { client, isSignedIn } = useSession();
  const { requestId } = answer;
  const isUnheard = answer.bill === null && requestId !== null;
  const settled = useQuery({
    queryKey: ["request", requestId],
    queryFn: () => client.request(requestId ?? ""),
    enabled: isUnheard && isSignedIn,
    refetchInterval: ({ state: { data, error } }) => {
      const isOver = error !== null || (data !== undefined && isSettled(data));
      return isOver ? false : AGAIN_MS;
    },
  });
  if (answer.bill !== null) return <Facts answer={answer} bill={answer.bill} model={model} />;
  if (requestId === null) {
    return answer.phase === "stopped" ? <Line>It was stopped before it began: nothing came that could be charged.</Line> : null;
  }
  const bill = settled.data === undefined ? undefined : billOfRequest(settled.data);
  if (bill !== undefined) return <Facts answer={answer} bill={bill} model={model} />;
  if (settled.error !== null) {
    return <ErrorState what="What was charged" error={settled.error} onRetry={() => void settled.refetch()} />;
  }
  return <Line>{isSignedIn ? "What it cost is being settled…" : "Sign in to see what it cost."}</Line>;
}

function Line({ children }: { children: ReactNode }) {
  return <p role="status" className="text-sm text-soft">{children}</p>;
}

function Facts({ answer, bill, model }: { answer: Answer; bill: Bill; model: Model | undefined }) {
  const speed = tokensPerSecond(bill);
  const end = answer.phase === "stopped" ? "You stopped it: what had come is charged, no more." : endInWords(bill.finishReason);
  return (
    <div className="flex flex-col gap-2 text-sm">
      <dl className="flex flex-wrap gap-x-5 gap-y-1 text-soft">
        <Fact name="Cost" title={`${count(bill.costUnits)} units of 1e-9 FAR`}>{far(bill.costUnits)}</Fact>
        <Fact name="Tokens" title={`${count(bill.cachedTokens)} of the prompt were known to the nodes from before`}>
          {count(bill.promptTokens)} in, {count(bill.completionTokens)} out
        </Fact>
        <Fact name="First token" title="Measured by the gateway, from when the request arrived">{milliseconds(bill.firstTokenMs)}</Fact>
        <Fact name="Speed" title="Measured by the gateway, from the first token to the last">
          {speed === undefined ? "not measured" : `${speed.toFixed(1)} tokens/s`}
        </Fact>
      </dl>
      {end !== undefined && <p className="text-soft">{end}</p>}
      {bill.creditUnits > 0 && (
        <p className="text-soft">It was slower than your tier promises: later requests cost {far(bill.creditUnits)} less.</p>
      )}
      {bill.nodes.length > 0 && (
        <details className="rounded-lg border border-line bg-surface">
          <summary className="cursor-pointer px-4 py-3 font-medium">Who ran it, and what proves it</summary>
          <div className="flex flex-col gap-5 border-t border-line p-4">
            <ServedBy bill={bill} blockCount={model?.block_count} />
            <Proof requestId={bill.requestId} model={model} />
          </div>
        </details>
      )}
    </div>
  );
}

function Fact({ name, title, children }: { name: string; title: string; children: ReactNode }) {
  return (
    <div className="flex gap-1.5">
      <dt>{name}</dt>
      <dd className="text-ink tabular-nums" title={title}>{children}</dd>
    </div>
  );
}
