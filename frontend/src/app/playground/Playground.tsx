"use client";

import { useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useReducer, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { ConfirmDialog } from "@/components/ui/ConfirmDialog";
import { Dialog } from "@/components/ui/Dialog";
import { Empty } from "@/components/ui/Empty";
import { Notice } from "@/components/ui/Notice";
import { PageHeader } from "@/components/ui/PageHeader";
import { Query } from "@/components/ui/Query";
import { useModels } from "@/lib/queries";
import { useSession } from "@/lib/session";
import { Composer } from "./Composer";
import { after, asMarkdown, before, messagesOf, shownAnswer, type Turn } from "./conversation";
import { saveFile } from "@/lib/saveFile";
import { ModelPicker } from "./ModelPicker";
import { Spoken } from "./Spoken";
import { TurnView } from "./TurnView";
import { useAnswering } from "./useAnswering";
import { useFollow } from "./useFollow";
import { useKept } from "./useKept";
import { useLosses } from "./useLosses";
import { DEFAULTS, modelIn, optionsOf, problemsOf, type Wishes } from "./wishes";
import { WishesForm } from "./WishesForm";

/** What a conversation goes on with where an answer was cut. */
const GO_ON = "Go on exactly where you stopped.";

/** What has the focus is not to lie below the composer, which stays in sight. */
const ABOVE_COMPOSER = "[&_:is(a,button,summary,textarea,[tabindex])]:scroll-mb-60";

export function Playground() {
  const { client, wallet } = useSession();
  const queries = useQueryClient();
  const models = useModels();
  const [conversation, dispatch] = useReducer(after, []);
  const [wishes, setWishes] = useState(DEFAULTS);
  const [open, setOpen] = useState<"settings" | "clear">();
  const { live, ask, stop } = useAnswering(client, dispatch);

  const isKept = useKept(
    useMemo(() => ({ wishes, conversation }), [wishes, conversation]),
    (kept) => {
      setWishes(kept.wishes);
      dispatch({ type: "restored", conversation: kept.conversation });
    },
  );
  useEffect(() => {
    const asked = new URLSearchParams(window.location.search).get("model");
    if (asked !== null) setWishes((now) => ({ ...now, model: asked }));
  }, []);
  useLosses(live, models.data ?? [], dispatch);
  useEscape(live !== undefined, stop);
  const { end, follow } = useFollow(conversation);

  const change = useCallback((changes: Partial<Wishes>) => setWishes((now) => ({ ...now, ...changes })), []);
  const model = modelIn(models.data ?? [], wishes.model);
  const problems = problemsOf(wishes, model);
  const canAsk = wallet !== undefined && live === undefined && model?.available === true && Object.keys(problems).length === 0;

  /** Asks for an answer to `question`, after all that was said `earlier`. */
  async function answer(id: string, earlier: readonly Turn[], question: string, quoteId?: string) {
    const messages = messagesOf(wishes.system, earlier, question);
    follow();
    await ask(id, { ...optionsOf(wishes), model: model?.id ?? "", messages, ...(quoteId !== undefined && { quote_id: quoteId }) });
    await queries.invalidateQueries({ queryKey: ["balance"] });
  }
  function send(question: string, quoteId?: string) {
    const begun = { id: newId(), model: model?.id ?? "" };
    dispatch({ type: "asked", turn: newId(), question, answer: begun });
    void answer(begun.id, conversation, question, quoteId);
  }
  function replace(turn: Turn, question: string) {
    const begun = { id: newId(), model: model?.id ?? "" };
    if (question === turn.question) dispatch({ type: "asked again", turn: turn.id, answer: begun });
    else dispatch({ type: "edited", turn: turn.id, question, answer: begun });
    void answer(begun.id, before(conversation, turn.id), question);
  }

  const last = conversation.at(-1);
  const form = <WishesForm wishes={wishes} problems={problems} model={model} onChange={change} />;
  return (
    <>
      <PageHeader title="Playground">
        Ask a model that runs on pooled GPUs. Below each answer stands who ran it, what it cost, and what proves it.
      </PageHeader>
      <div className="grid gap-6 lg:grid-cols-[minmax(0,1fr)_20rem]">
        <div className="flex min-w-0 flex-col gap-6">
          <Query what="The models" query={models}>
            {(all) => <ModelPicker models={all} model={model} tier={wishes.tier} onChange={(id) => change({ model: id })} />}
          </Query>
          <div className={`flex flex-wrap gap-2 ${last === undefined ? "lg:hidden" : ""}`}>
            <Button kind="quiet" className="lg:hidden" onClick={() => setOpen("settings")}>Settings</Button>
            {last !== undefined && (
              <>
                <Button
                  kind="quiet"
                  onClick={() => saveFile("conversation.md", asMarkdown(conversation), "text/markdown")}
                >
                  Save as a file
                </Button>
                <Button kind="quiet" disabled={live !== undefined} onClick={() => setOpen("clear")}>Clear</Button>
              </>
            )}
          </div>
          <section aria-label="Conversation" className={`flex flex-col gap-8 ${ABOVE_COMPOSER}`}>
            <h2 className="sr-only">Conversation</h2>
            {conversation.length === 0 && (
              <Empty title="Nothing has been asked yet">
                <p>
                  What you write is kept in this tab only, until you close it, and sent to this gateway only. The nodes that run
                  the model can read along: do not send strangers what they must not know.
                </p>
              </Empty>
            )}
            {conversation.map((turn, place) => (
              <TurnView
                key={turn.id}
                turn={turn}
                number={place + 1}
                isLast={turn === last}
                canAsk={canAsk}
                live={live}
                models={models.data ?? []}
                onAsk={(question) => replace(turn, question)}
                onGoOn={() => send(GO_ON)}
                onShow={(shown) => dispatch({ type: "chosen", turn: turn.id, shown })}
              />
            ))}
          </section>
          {!isKept && (
            <Notice kind="warn" title="This conversation is not kept">
              It is too long for what this browser keeps for a tab, or the browser keeps nothing. It is gone when you leave the page.
            </Notice>
          )}
          <Composer
            wishes={wishes}
            model={model}
            earlier={conversation}
            hasWallet={wallet !== undefined}
            hasProblems={Object.keys(problems).length > 0}
            isAnswering={live !== undefined}
            onSend={send}
            onStop={stop}
          />
          <div ref={end} />
        </div>
        <aside aria-label="Settings" className="self-start max-lg:hidden lg:sticky lg:top-20 lg:max-h-[calc(100dvh-6rem)] lg:overflow-y-auto">
          <Card title="Settings">{form}</Card>
        </aside>
      </div>
      <Spoken answer={last === undefined ? undefined : shownAnswer(last)} />
      <Dialog title="Settings" isSheet isOpen={open === "settings"} onClose={() => setOpen(undefined)}>
        {form}
      </Dialog>
      <ConfirmDialog
        title="Clear the conversation?"
        act="Clear"
        isOpen={open === "clear"}
        onClose={() => setOpen(undefined)}
        onConfirm={async () => dispatch({ type: "cleared" })}
      >
        <p>It is kept nowhere else. The account still shows what was asked for and what it cost, but never what was said.</p>
      </ConfirmDialog>
    </>
  );
}

/** Escape stops an answer, unless it closes a dialog. */
function useEscape(isListening: boolean, onEscape: () => void) {
  useEffect(() => {
    if (!isListening) return;
    const pressed = (event: KeyboardEvent) => {
      if (event.key === "Escape" && document.querySelector("dialog[open]") === null) onEscape();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [isListening, onEscape]);
}

/** Differs from all others of this tab; `crypto.randomUUID` is not there where a page comes without TLS. */
function newId(): string {
  return `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
}
