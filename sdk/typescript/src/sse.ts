/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
 *
 * Events are split over chunks anywhere: in the middle of a line, between CR and LF, within a character of UTF-8.
 */

export interface ServerSentEvent {
  event: string;
  data: string;
}

/** A line that means nothing to most readers. Ours say how it goes with what has not begun yet. */
export interface StreamComment {
  comment: string;
}

export type StreamItem = ServerSentEvent | StreamComment;

/** Longest event that is taken, in characters: what is longer is no event of ours. */
export const MAX_EVENT_CHARACTERS = 16 * 2 ** 20;

/** Takes text as it comes, and gives whole events and comments. Each character is looked at once. */
export class EventParser {
  /** The line that has not ended yet, in the pieces in which it came. */
  #line: string[] = [];
  #data: string[] = [];
  #event = "";
  #length = 0;
  #isFirst = true;
  #wasReturn = false;

  /**
   * The events and comments that end within `text`.
   *
   * @throws RangeError an event is longer than {@link MAX_EVENT_CHARACTERS}.
   */
  push(text: string): StreamItem[] {
    const items: StreamItem[] = [];
    let from = 0;
    if (text !== "") {
      if (this.#isFirst && text.startsWith("\uFEFF")) from = 1;
      else if (this.#wasReturn && text.startsWith("\n")) from = 1; // of the line that the carriage return has ended
      this.#isFirst = this.#wasReturn = false;
    }
    for (let at = from; at < text.length; at++) {
      const character = text.charCodeAt(at);
      if (character !== 10 && character !== 13) continue;
      this.#keep(text.slice(from, at));
      this.#endLine(items);
      if (character === 13) {
        if (at + 1 === text.length) this.#wasReturn = true;
        else if (text.charCodeAt(at + 1) === 10) at++;
      }
      from = at + 1;
    }
    this.#keep(text.slice(from));
    return items;
  }

  #keep(piece: string): void {
    if (piece === "") return;
    this.#length += piece.length;
    if (this.#length > MAX_EVENT_CHARACTERS) throw new RangeError("an event of the stream is too long");
    this.#line.push(piece);
  }

  #endLine(items: StreamItem[]): void {
    const line = this.#line.join("");
    this.#line = [];
    if (line === "") {
      if (this.#data.length > 0) items.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#data = [];
      this.#event = "";
      this.#length = 0;
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else {
      if (field === "event") this.#event = value;
      else if (field === "") items.push({ comment: value });
      this.#length -= line.length; // nothing of it is kept
    }
  }
}

/** The events and comments of a body. What stands after the last blank line is none: the stream was cut off in it. */
export async function* itemsOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<StreamItem, void, undefined> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const parser = new EventParser();
  for await (const chunk of chunks) yield* parser.push(decoder.decode(chunk, { stream: true }));
  yield* parser.push(decoder.decode());
}
