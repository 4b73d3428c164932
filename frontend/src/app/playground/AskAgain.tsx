"use client";

import { Button } from "@/components/ui/Button";
import { useNow } from "@/lib/useNow";
import type { Answer } from "./conversation";
import { secondsLeft } from "./trouble";

/** Asks the same once more; not before the gateway has said that it can help. */
export function AskAgain({ answer, canAsk, onAsk }: { answer: Answer; canAsk: boolean; onAsk: () => void }) {
  const now = useNow(answer.trouble?.retryAt != null);
  const seconds = answer.trouble === null ? 0 : secondsLeft(answer.trouble, now);
  return (
    <Button kind="quiet" disabled={!canAsk || seconds > 0} onClick={onAsk}>
      {answer.trouble === null ? "Another answer" : "Ask again"}
      {seconds > 0 && <span className="tabular-nums"> in {seconds} s</span>}
    </Button>
  );
}
