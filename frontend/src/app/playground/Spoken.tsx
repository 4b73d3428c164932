"use client";

import { useEffect, useRef, useState } from "react";
import type { Answer } from "./conversation";
import { sentencesAfter } from "./speech";

const SAID_EVERY_MS = 3_000;

/** Reads out an answer while it is written, in whole sentences and not all the time; then that it has ended, and how. */
export function Spoken({ answer }: { answer: Answer | undefined }) {
  const [said, setSaid] = useState("");
  const progress = useRef({ id: "", upTo: 0 });
  const latest = useRef(answer);
  const id = answer?.id ?? "";
  const isOver = answer !== undefined && answer.phase !== "waiting" && answer.phase !== "streaming";

  useEffect(() => {
    latest.current = answer;
  });
  useEffect(() => {
    // What was there before, or is chosen again, is read by who goes there.
    if (isOver && progress.current.id !== id) return;
    if (progress.current.id !== id) progress.current = { id, upTo: 0 };
    const say = () => {
      const { text, upTo } = sentencesAfter(latest.current?.text ?? "", progress.current.upTo, isOver);
      progress.current.upTo = upTo;
      const end = isOver ? endOf(latest.current) : "";
      if (text !== "" || end !== "") setSaid([text, end].filter(Boolean).join(" "));
    };
    if (isOver) {
      say();
      return;
    }
    const timer = setInterval(say, SAID_EVERY_MS);
    return () => clearInterval(timer);
  }, [id, isOver]);

  return <div aria-live="polite" className="sr-only">{said}</div>;
}

function endOf(answer: Answer | undefined): string {
  switch (answer?.phase) {
    case "done":
      return "End of the answer.";
    case "stopped":
      return "The answer was stopped.";
    default:
      return ""; // what went wrong is told by a notice of its own
  }
}
