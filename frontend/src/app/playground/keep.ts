import type { Answer, Conversation, Turn } from "./conversation";
import { LEFT } from "./trouble";
import { DEFAULTS, type Wishes } from "./wishes";

export interface Kept {
  wishes: Wishes;
  conversation: Conversation;
}

/** Changes with the shapes: what an older page has kept is not read. */
const VERSION = 1;

export function written(kept: Kept): string {
  return JSON.stringify({ version: VERSION, ...kept });
}

/** What was kept, or undefined where that is nothing of this page's. Answers that were under way ended with it. */
export function read(text: string | null): Kept | undefined {
  try {
    const found = JSON.parse(text ?? "null") as (Kept & { version: number }) | null;
    if (found?.version !== VERSION) return undefined;
    return { wishes: { ...DEFAULTS, ...found.wishes }, conversation: found.conversation.map(ended) };
  } catch {
    return undefined;
  }
}

function ended(turn: Turn): Turn {
  const isOpen = ({ phase }: Answer) => phase === "waiting" || phase === "streaming";
  return {
    ...turn,
    answers: turn.answers.map((answer) => (isOpen(answer) ? { ...answer, phase: "failed", trouble: LEFT } : answer)),
  };
}
