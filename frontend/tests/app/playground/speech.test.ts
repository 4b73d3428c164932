import { expect, test } from "vitest";
import { sentencesAfter } from "@/app/playground/speech";

test("half a sentence is not read out", () => {
  expect(sentencesAfter("Once upon a", 0, false)).toEqual({ text: "", upTo: 0 });
  expect(sentencesAfter("It costs 3.5 FAR", 0, false)).toEqual({ text: "", upTo: 0 });
});

test("each sentence is read out once, however the text comes", () => {
  const answer = "Once. Upon a time! There was\na **rabbit** that sold `cards`.";
  let said = "";
  let upTo = 0;
  for (let end = 0; end <= answer.length; end++) {
    const speech = sentencesAfter(answer.slice(0, end), upTo, false);
    said += `${speech.text} `;
    upTo = speech.upTo;
  }
  said += sentencesAfter(answer, upTo, true).text;
  expect(said.replace(/\s+/g, " ").trim()).toBe("Once. Upon a time! There was a rabbit that sold cards.");
});

test("marks that only the eye needs are not read out", () => {
  expect(sentencesAfter("# Title\n- one\n> two\n| a | b |", 0, true).text).toBe("Title one two a b");
});
