"use client";

import { gas, transactionUrl } from "@/lib/chain";
import { short } from "@/lib/format";
import { usePayments } from "@/lib/queries";
import type { TransactionState } from "@/lib/useTransaction";
import { chainOf } from "@/lib/wallet";
import { Notice } from "./Notice";

/** Where a transaction can be looked up: a link where its chain has an explorer, else its hash. */
export function TransactionLink({ hash, chain }: { hash: string; chain?: string | undefined }) {
  const { data } = usePayments();
  const url = transactionUrl(chain ?? data?.chain ?? undefined, hash);
  const text = <span className="font-mono text-xs">{short(hash, 10, 6)}</span>;
  if (url === undefined) return <span title={hash}>{text}</span>;
  return (
    <a href={url} target="_blank" rel="noreferrer" title={hash} className="text-brand-soft underline underline-offset-4">
      {text}
      <span className="sr-only"> (opens a block explorer)</span>
    </a>
  );
}

/** What happens with a transaction at this moment. `done`: what it has achieved, as a sentence. */
export function TransactionSteps({ state, done }: { state: TransactionState; done: string }) {
  const { data } = usePayments();
  const chain = data === undefined ? undefined : chainOf(data);
  switch (state.step) {
    case "idle":
      return null;
    case "switching":
      return <Notice kind="info" title={`Change to ${chain?.name ?? "the chain of the marketplace"} in your wallet`}>It asks whether it may.</Notice>;
    case "checking":
      return <Notice kind="info" title="Trying it first">So that you pay no gas for something that would be refused.</Notice>;
    case "signing":
      return (
        <Notice kind="info" title="Confirm it in your wallet">
          {state.fee === undefined
            ? "Your wallet says what the gas costs."
            : `Gas costs about ${gas(state.fee, chain?.nativeCurrency.symbol ?? "")} at this moment.`}
        </Notice>
      );
    case "pending":
      return (
        <Notice kind="info" title="Sent; waiting for a block">
          <TransactionLink hash={state.hash} />
        </Notice>
      );
    case "done":
      return (
        <Notice kind="good" title={done}>
          <TransactionLink hash={state.hash} />
        </Notice>
      );
    case "failed":
      return (
        <Notice kind="bad" title="That did not work">
          <p>{state.reason}</p>
          {state.hash !== undefined && <TransactionLink hash={state.hash} />}
        </Notice>
      );
  }
}
