import type { ChatMessage } from "farlabs";
import type { Bill } from "./bill";
import type { Trouble } from "./trouble";

/** `waiting` for its first token, `streaming`; then `done`, `stopped` by who asked, or `failed`. */
export type Phase = "waiting" | "streaming" | "done" | "stopped" | "failed";

export interface Answer {
  id: string;
  model: string;
  phase: Phase;
  text: string;
  /** The name of the request at the gateway, once it has one. */
  requestId: string | null;
  /** So many nodes of the model went away while it was written. */
  lostNodes: number;
  bill: Bill | null;
  trouble: Trouble | null;
}

/** A question and what was answered to it, each time that it was asked. `shown`: which of them counts. */
export interface Turn {
  id: string;
  question: string;
  answers: Answer[];
  shown: number;
}

export type Conversation = readonly Turn[];

/** An answer that is about to be asked for. */
export type Begun = Pick<Answer, "id" | "model">;

export type Act =
  | { type: "asked"; turn: string; question: string; answer: Begun }
  | { type: "asked again"; turn: string; answer: Begun }
  | { type: "edited"; turn: string; question: string; answer: Begun }
  | { type: "came"; answer: string; text: string; requestId: string | null }
  | { type: "lost"; answer: string; nodes: number }
  | { type: "ended"; answer: string; phase: "done" | "stopped" | "failed"; requestId: string | null; bill?: Bill; trouble?: Trouble }
  | { type: "chosen"; turn: string; shown: number }
  | { type: "restored"; conversation: Conversation }
  | { type: "cleared" };

/** What becomes of a conversation. Asking a question again, or another one in its place, drops what came after it. */
export function after(conversation: Conversation, act: Act): Conversation {
  switch (act.type) {
    case "asked":
      return [...conversation, { id: act.turn, question: act.question, answers: [begun(act.answer)], shown: 0 }];
    case "asked again":
      return upTo(conversation, act.turn, (turn) => {
        const answers = [...turn.answers, begun(act.answer)];
        return { ...turn, answers, shown: answers.length - 1 };
      });
    case "edited":
      return upTo(conversation, act.turn, ({ id }) => ({ id, question: act.question, answers: [begun(act.answer)], shown: 0 }));
    case "came":
      return withAnswer(conversation, act.answer, (answer) => {
        const text = answer.text + act.text;
        return { ...answer, phase: text === "" ? "waiting" : "streaming", text, requestId: act.requestId ?? answer.requestId };
      });
    case "lost":
      return withAnswer(conversation, act.answer, (answer) => ({ ...answer, lostNodes: Math.max(answer.lostNodes, act.nodes) }));
    case "ended":
      return withAnswer(conversation, act.answer, (answer) => ({
        ...answer,
        phase: act.phase,
        requestId: act.requestId ?? answer.requestId,
        bill: act.bill ?? null,
        trouble: act.trouble ?? null,
      }));
    case "chosen":
      return conversation.map((turn) => {
        const exists = turn.id === act.turn && turn.answers[act.shown] !== undefined;
        return exists ? { ...turn, shown: act.shown } : turn;
      });
    case "restored":
      return act.conversation;
    case "cleared":
      return [];
  }
}

export function shownAnswer(turn: Turn): Answer | undefined {
  return turn.answers[turn.shown];
}

/** The conversation until before a turn; all of it, if there is no such turn. */
export function before(conversation: Conversation, turn: string): Conversation {
  const at = conversation.findIndex(({ id }) => id === turn);
  return at < 0 ? conversation : conversation.slice(0, at);
}

/** What a model is told: the system prompt, what was said, the new question. Turns without an answer are left out. */
export function messagesOf(system: string, conversation: Conversation, question: string): ChatMessage[] {
  const said = conversation.flatMap((turn): ChatMessage[] => {
    const text = shownAnswer(turn)?.text ?? "";
    if (text === "") return [];
    return [
      { role: "user", content: turn.question },
      { role: "assistant", content: text },
    ];
  });
  const first: ChatMessage[] = system.trim() === "" ? [] : [{ role: "system", content: system }];
  return [...first, ...said, { role: "user", content: question }];
}

/** The conversation as a text to keep. */
export function asMarkdown(conversation: Conversation): string {
  const parts = conversation.flatMap((turn) => {
    const answer = shownAnswer(turn);
    const said = answer === undefined || answer.text === "" ? "*(no answer)*" : answer.text.trim();
    return [`## You\n\n${turn.question.trim()}`, `## ${answer?.model ?? "Answer"}\n\n${said}`];
  });
  return `${parts.join("\n\n")}\n`;
}

function begun({ id, model }: Begun): Answer {
  return { id, model, phase: "waiting", text: "", requestId: null, lostNodes: 0, bill: null, trouble: null };
}

function upTo(conversation: Conversation, id: string, change: (turn: Turn) => Turn): Conversation {
  const turn = conversation.find((one) => one.id === id);
  return turn === undefined ? conversation : [...before(conversation, id), change(turn)];
}

function withAnswer(conversation: Conversation, id: string, change: (answer: Answer) => Answer): Conversation {
  return conversation.map((turn) => {
    if (!turn.answers.some((answer) => answer.id === id)) return turn;
    return { ...turn, answers: turn.answers.map((answer) => (answer.id === id ? change(answer) : answer)) };
  });
}
