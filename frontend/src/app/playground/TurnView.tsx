"use client";

import type { Model } from "farlabs";
import { type KeyboardEvent, useState } from "react";
import { Button } from "@/components/ui/Button";
import { CopyButton } from "@/components/ui/CopyButton";
import { TextArea } from "@/components/ui/Field";
import { AnswerView } from "./AnswerView";
import { shownAnswer, type Turn } from "./conversation";
import type { Live } from "./useAnswering";

export interface TurnViewProps {
  turn: Turn;
  /** Counted from 1. */
  number: number;
  isLast: boolean;
  /** Whether something can be asked now. */
  canAsk: boolean;
  live: Live | undefined;
  models: readonly Model[];
  onAsk: (question: string) => void;
  onGoOn: () => void;
  onShow: (place: number) => void;
}

/** A question, and what was answered. */
export function TurnView(props: TurnViewProps) {
  const { turn, number, isLast, canAsk, onAsk } = props;
  const [isEditing, setEditing] = useState(false);
  const [wasEdited, setEdited] = useState(false);
  const answer = shownAnswer(turn);
  return (
    <article className="flex min-w-0 flex-col gap-4">
      <div className="ml-auto flex max-w-full flex-col items-end gap-1 sm:max-w-[85%]">
        <h3 className="sr-only">Question {number}</h3>
        {isEditing ? (
          <Edit
            question={turn.question}
            isLast={isLast}
            canAsk={canAsk}
            onCancel={() => {
              setEditing(false);
              setEdited(true); // the focus goes back to where it came from
            }}
            onAsk={(question) => {
              setEditing(false);
              onAsk(question);
            }}
          />
        ) : (
          <>
            <p className="max-w-full rounded-xl bg-raised px-4 py-3 break-words whitespace-pre-wrap">{turn.question}</p>
            <div className="flex gap-1">
              <CopyButton text={turn.question} what={`question ${number}`} />
              <Button kind="quiet" aria-label={`Edit question ${number}`} autoFocus={wasEdited} onClick={() => setEditing(true)}>Edit</Button>
            </div>
          </>
        )}
      </div>
      {answer !== undefined && <AnswerView {...props} answer={answer} />}
    </article>
  );
}

interface EditProps {
  question: string;
  isLast: boolean;
  canAsk: boolean;
  onCancel: () => void;
  onAsk: (question: string) => void;
}

function Edit({ question, isLast, canAsk, onCancel, onAsk }: EditProps) {
  const [text, setText] = useState(question);
  const isReady = canAsk && text.trim() !== "";
  function pressed(event: KeyboardEvent) {
    if (event.key === "Escape") onCancel();
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    if (isReady) onAsk(text);
  }
  return (
    <div className="flex w-[min(40rem,100%)] flex-col gap-2">
      <TextArea
        label="Ask this instead"
        hint={isLast ? undefined : "What came after it goes away."}
        rows={3}
        autoFocus
        className="field-sizing-content max-h-[40dvh]"
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={pressed}
      />
      <div className="flex justify-end gap-2">
        <Button kind="quiet" onClick={onCancel}>Cancel</Button>
        <Button disabled={!isReady} onClick={() => onAsk(text)}>Send</Button>
      </div>
    </div>
  );
}
