"use client";

import { useQuery } from "@tanstack/react-query";
import type { Model } from "farlabs";
import Link from "next/link";
import { type FormEvent, type KeyboardEvent, useRef, useState } from "react";
import { WalletButton } from "@/components/shell/WalletButton";
import { Button } from "@/components/ui/Button";
import { TextArea } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { count, far } from "@/lib/format";
import { useSession } from "@/lib/session";
import { useOnline } from "@/lib/useOnline";
import type { Conversation } from "./conversation";
import { usable, useQuote, type Quoting } from "./useQuote";
import type { Wishes } from "./wishes";

/** In sight while one reads, where there is room for both. */
const STAYS = "bottom-0 rounded-b-none [@media(min-height:36rem)]:sticky";

interface ComposerProps {
  wishes: Wishes;
  model: Model | undefined;
  earlier: Conversation;
  /** Whether there is somebody who can ask. */
  hasWallet: boolean;
  hasProblems: boolean;
  isAnswering: boolean;
  onSend: (question: string, quoteId?: string) => void;
  onStop: () => void;
}

/** Where the next question is written. */
export function Composer(props: ComposerProps) {
  if (!props.hasWallet) return <WithoutWallet />;
  return <Form {...props} />;
}

function WithoutWallet() {
  return (
    <div className="flex flex-col items-start gap-4 rounded-xl border border-line bg-surface p-5">
      <p className="text-sm">
        To ask, connect a wallet: it is your account here, there is nothing to register, and looking around costs nothing.
        Answers are paid from what you deposit, by the token.
      </p>
      <WalletButton />
    </div>
  );
}

function Form({ wishes, model, earlier, hasProblems, isAnswering, onSend, onStop }: ComposerProps) {
  const [draft, setDraft] = useState("");
  const form = useRef<HTMLFormElement>(null);
  const isOnline = useOnline();
  const isReady = !isAnswering && !hasProblems && model?.available === true;
  const quoting = useQuote(draft, earlier, wishes, isReady ? model?.id : undefined);
  const canSend = isReady && draft.trim() !== "";

  function send() {
    if (!canSend) return;
    onSend(draft, quoting.isCurrent ? usable(quoting.query.data, Date.now()) : undefined);
    setDraft("");
  }
  function stop() {
    onStop();
    form.current?.querySelector("textarea")?.focus(); // the button that had the focus is about to go
  }
  function pressed(event: KeyboardEvent<HTMLTextAreaElement>) {
    // Enter that ends the writing of a character, as in Japanese, sends nothing.
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    send();
  }
  return (
    <form
      ref={form}
      className={`flex flex-col gap-3 rounded-xl border border-line bg-surface p-4 ${earlier.length > 0 ? STAYS : ""}`}
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        send();
      }}
    >
      {!isOnline && (
        <Notice kind="warn" title="You are offline">
          If the gateway is not on this machine, it cannot be reached until the connection is back.
        </Notice>
      )}
      <TextArea
        label="Message"
        hint="Enter sends, Shift and Enter makes a new line, Escape stops the answer."
        rows={2}
        className="field-sizing-content max-h-[40dvh] min-h-16 resize-none"
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={pressed}
      />
      <div className="flex flex-wrap items-center justify-between gap-3">
        <div className="min-w-0 flex-1 text-sm text-soft">
          <Price quoting={quoting} isWanted={isReady && wishes.quotes && draft.trim() !== ""} isFirst={earlier.length === 0} />
          {model?.available === false && <p className="text-warn">Nothing can be sent now: {model.reason}.</p>}
          {hasProblems && <p className="text-bad">Something in the settings is not right: it is marked there.</p>}
        </div>
        {isAnswering ? (
          <Button kind="danger" onClick={stop}>Stop</Button>
        ) : (
          <Button type="submit" disabled={!canSend}>Send</Button>
        )}
      </div>
    </form>
  );
}

interface PriceProps {
  quoting: Quoting;
  isWanted: boolean;
  /** Whether nothing was said before. */
  isFirst: boolean;
}

function Price({ quoting: { query, isCurrent }, isWanted, isFirst }: PriceProps) {
  const { client, wallet, isSignedIn } = useSession();
  const balance = useQuery({ queryKey: ["balance", wallet], queryFn: () => client.balance(), enabled: isSignedIn });
  const available = balance.data?.available_units;
  const has = available === undefined ? "" : ` You have ${far(available)}.`;
  if (!isSignedIn) return <p>You sign in with your wallet when you send the first message; signing costs nothing.</p>;
  if (!isWanted) return has === "" ? null : <p>{has}</p>;
  if (!isCurrent || query.isPending) return <p>Counting…{has}</p>;
  if (query.data === undefined) return <p>{query.error === null ? "" : `No quote: ${explain(query.error)}`}{has}</p>;
  const { prompt_tokens: prompt, max_tokens: most, max_cost_units: cost } = query.data;
  return (
    <>
      <p title={`${count(cost)} units of 1e-9 FAR`}>
        {count(prompt)} tokens{isFirst ? "" : " with what was said before"}, and up to {count(most)} of answer: at most {far(cost)}.{has}
      </p>
      {available !== undefined && cost > available && (
        <p className="text-warn">
          That is more than you have. Take fewer tokens, or <Link href="/account" className="underline">deposit</Link>.
        </p>
      )}
    </>
  );
}
