/** What is read out of an answer while it is written: whole sentences, none of them twice. */
export interface Speech {
  text: string;
  /** So many characters of the answer have been said. */
  upTo: number;
}

const END_OF_SENTENCE = /[.!?:;…](?=\s)|\n/g;

/** The sentences that have been completed since. All that is left, if the answer is over. */
export function sentencesAfter(answer: string, from: number, isOver: boolean): Speech {
  const rest = answer.slice(from);
  const upTo = isOver ? rest.length : lastEnd(rest);
  return { text: withoutMarks(rest.slice(0, upTo)), upTo: from + upTo };
}

function lastEnd(text: string): number {
  const last = [...text.matchAll(END_OF_SENTENCE)].at(-1);
  return last === undefined ? 0 : last.index + last[0].length;
}

/** Without what only the eye needs. */
function withoutMarks(text: string): string {
  return text
    .replace(/^\s{0,3}(#{1,6}|>|[-*+])\s+/gm, "")
    .replace(/[*_`~|]+/g, "")
    .replace(/\s+/g, " ")
    .trim();
}
