import { expect, test } from "vitest";
import { type Act, after, asMarkdown, before, type Conversation, messagesOf } from "@/app/playground/conversation";
import { LEFT } from "@/app/playground/trouble";

function told(...acts: Act[]): Conversation {
  return acts.reduce(after, [] as Conversation);
}

const asked = (turn: string, question: string): Act => ({ type: "asked", turn, question, answer: { id: `${turn}-a`, model: "tiny" } });
const came = (answer: string, text: string): Act => ({ type: "came", answer, text, requestId: "req_1" });
const ended = (answer: string): Act => ({ type: "ended", answer, phase: "done", requestId: "req_1" });

test("a question waits for its answer, which grows and ends", () => {
  expect(told(asked("1", "Hi"))[0]?.answers[0]).toMatchObject({ phase: "waiting", text: "", requestId: null });
  const streaming = told(asked("1", "Hi"), came("1-a", "Hel"), came("1-a", "lo"));
  expect(streaming[0]?.answers[0]).toMatchObject({ phase: "streaming", text: "Hello", requestId: "req_1" });
  expect(after(streaming, ended("1-a"))[0]?.answers[0]).toMatchObject({ phase: "done", text: "Hello", trouble: null });
});

test("an answer that is stopped before it began keeps what is known of it", () => {
  const stopped = told(asked("1", "Hi"), { type: "ended", answer: "1-a", phase: "stopped", requestId: null });
  expect(stopped[0]?.answers[0]).toMatchObject({ phase: "stopped", text: "", requestId: null });
});

test("how many nodes went away meanwhile is the most that were missed at once", () => {
  const lost = (nodes: number): Act => ({ type: "lost", answer: "1-a", nodes });
  expect(told(asked("1", "Hi"), lost(2), lost(1))[0]?.answers[0]?.lostNodes).toBe(2);
});

test("what comes for an answer that is gone changes nothing", () => {
  const one = told(asked("1", "Hi"));
  expect(after(one, came("another", "x"))).toEqual(one);
});

test("asked again, a question has both answers, shows the new one, and forgets what came later", () => {
  const again = told(asked("1", "Hi"), came("1-a", "Hello"), ended("1-a"), asked("2", "And?"), {
    type: "asked again",
    turn: "1",
    answer: { id: "b", model: "tiny" },
  });
  expect(again).toHaveLength(1);
  expect(again[0]).toMatchObject({ shown: 1, answers: [{ text: "Hello" }, { phase: "waiting" }] });
  expect(after(again, { type: "chosen", turn: "1", shown: 0 })[0]?.shown).toBe(0);
  expect(after(again, { type: "chosen", turn: "1", shown: 2 })[0]?.shown).toBe(1);
});

test("an edited question loses its answers, and what came later", () => {
  const edited = told(asked("1", "Hi"), came("1-a", "Hello"), asked("2", "And?"), {
    type: "edited",
    turn: "1",
    question: "Ho",
    answer: { id: "b", model: "tiny" },
  });
  expect(edited).toMatchObject([{ question: "Ho", shown: 0, answers: [{ id: "b", text: "" }] }]);
});

test("cleared, nothing is left", () => {
  expect(told(asked("1", "Hi"), { type: "cleared" })).toEqual([]);
});

test("a model is told the answers that are shown, and no questions that had none", () => {
  const conversation = told(
    asked("1", "Hi"),
    came("1-a", "Hello"),
    { type: "asked again", turn: "1", answer: { id: "b", model: "tiny" } },
    came("b", "Good day"),
    asked("2", "Lost"),
    { type: "ended", answer: "2-a", phase: "failed", requestId: null, trouble: LEFT },
  );
  expect(messagesOf("Be kind.", conversation, "And you?")).toEqual([
    { role: "system", content: "Be kind." },
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Good day" },
    { role: "user", content: "And you?" },
  ]);
  expect(messagesOf("  ", before(conversation, "1"), "Hi")).toEqual([{ role: "user", content: "Hi" }]);
});

test("a conversation is saved as it is shown", () => {
  const conversation = told(asked("1", "Hi"), came("1-a", "Hello **you**\n"), asked("2", "And?"));
  expect(asMarkdown(conversation)).toBe("## You\n\nHi\n\n## tiny\n\nHello **you**\n\n## You\n\nAnd?\n\n## tiny\n\n*(no answer)*\n");
});
