import { expect, test } from "vitest";
import { after, type Conversation } from "@/app/playground/conversation";
import { read, written } from "@/app/playground/keep";
import { DEFAULTS } from "@/app/playground/wishes";

const conversation = after([] as Conversation, { type: "asked", turn: "1", question: "Hi", answer: { id: "a", model: "tiny" } });

test("what is kept comes back, and answers that were under way have ended", () => {
  const done = after(conversation, { type: "ended", answer: "a", phase: "done", requestId: "req_1" });
  const kept = { wishes: { ...DEFAULTS, system: "Be kind." }, conversation: done };
  expect(read(written(kept))).toEqual(kept);
  const back = read(written({ wishes: DEFAULTS, conversation }));
  expect(back?.conversation[0]?.answers[0]).toMatchObject({ phase: "failed", trouble: { kind: "left" } });
});

test("wishes that an earlier page did not know are as at the beginning", () => {
  const { seed: _, ...older } = DEFAULTS;
  expect(read(JSON.stringify({ version: 1, wishes: older, conversation: [] }))?.wishes).toEqual(DEFAULTS);
});

test.each([null, "", "{", "null", "7", "[]", '{"version":0}', '{"version":1}', '{"version":1,"conversation":[7]}', '{"version":1,"conversation":[{}]}'])(
  "%s is nothing of this page's",
  (text) => {
    expect(read(text)).toBeUndefined();
  },
);
