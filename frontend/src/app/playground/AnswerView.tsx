"use client";

import { Button } from "@/components/ui/Button";
import { CopyButton } from "@/components/ui/CopyButton";
import { Activity } from "./Activity";
import { AskAgain } from "./AskAgain";
import { AnswerFacts } from "./AnswerFacts";
import type { Answer } from "./conversation";
import { Markdown } from "./Markdown";
import { TroubleNotice } from "./TroubleNotice";
import type { TurnViewProps } from "./TurnView";

/** An answer: what it says, what can be done with it, and what it came to. */
export function AnswerView({ answer, turn, number, isLast, canAsk, live, models, onAsk, onGoOn, onShow }: TurnViewProps & { answer: Answer }) {
  const isOpen = answer.phase === "waiting" || answer.phase === "streaming";
  const model = models.find(({ id }) => id === answer.model);
  const isCut = answer.text !== "" && (answer.phase !== "done" || answer.bill?.finishReason === "length");
  return (
    <div className="flex min-w-0 flex-col gap-3">
      <h3 className="text-sm font-medium text-soft">
        {model?.name ?? answer.model} <span className="sr-only">to question {number}</span>
      </h3>
      {answer.text !== "" && <Markdown text={answer.text} hasCaret={answer.phase === "streaming"} />}
      {answer.text === "" && answer.phase === "done" && <p className="text-sm text-soft">The answer is empty.</p>}
      {isOpen && live?.answer === answer.id && <Activity live={live} hasText={answer.text !== ""} />}
      {answer.lostNodes > 0 && <Lost nodes={answer.lostNodes} model={model?.name ?? answer.model} wentOn={answer.text !== "" && answer.phase !== "failed"} />}
      {answer.trouble !== null && <TroubleNotice trouble={answer.trouble} hasText={answer.text !== ""} />}
      {!isOpen && (
        <>
          <div className="flex flex-wrap items-center gap-2">
            {answer.text !== "" && <CopyButton text={answer.text} what={`the answer to question ${number}`} />}
            {isLast && <AskAgain answer={answer} canAsk={canAsk} onAsk={() => onAsk(turn.question)} />}
            {isLast && isCut && <Button kind="quiet" disabled={!canAsk} onClick={onGoOn}>Go on</Button>}
            {isLast && turn.answers.length > 1 && <Variants shown={turn.shown} all={turn.answers.length} onShow={onShow} />}
          </div>
          <AnswerFacts answer={answer} model={model} />
        </>
      )}
    </div>
  );
}

function Lost({ nodes, model, wentOn }: { nodes: number; model: string; wentOn: boolean }) {
  return (
    <p role="status" className="text-sm text-warn">
      {nodes === 1 ? "A node" : `${nodes} nodes`} of {model} went away while this was written.
      {wentOn && " If it was at work on this answer, the answer went on with another one."}
    </p>
  );
}

/** The answers to one question, one after the other. */
function Variants({ shown, all, onShow }: { shown: number; all: number; onShow: (place: number) => void }) {
  return (
    <div className="flex items-center gap-1 text-sm text-soft" role="group" aria-label="Answers to this question">
      <Button kind="quiet" aria-label="The answer before" disabled={shown === 0} onClick={() => onShow(shown - 1)}>‹</Button>
      <span className="tabular-nums" aria-live="polite">{shown + 1} of {all}</span>
      <Button kind="quiet" aria-label="The answer after" disabled={shown === all - 1} onClick={() => onShow(shown + 1)}>›</Button>
    </div>
  );
}
