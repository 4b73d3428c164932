/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
 *
 * Events are split over chunks anywhere: in the middle of a line, between CR and LF, within a character of UTF-8.
 */

export interface ServerSentEvent {
  event: string;
  data: string;
}

/** Longest line and event that is taken, in characters: what is longer is no event of ours. */
export const MAX_EVENT_CHARACTERS = 16 * 2 ** 20;

/** Takes text as it comes, and gives whole events. */
export class EventParser {
  #rest = "";
  #data: string[] = [];
  #length = 0;
  #event = "";
  #isFirst = true;

  /**
   * The events that end within `text`.
   *
   * @throws RangeError if a line or an event is longer than {@link MAX_EVENT_CHARACTERS}.
   */
  push(text: string): ServerSentEvent[] {
    if (this.#isFirst && text !== "") {
      this.#isFirst = false;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    const events: ServerSentEvent[] = [];
    let all = this.#rest + text;
    let from = 0;
    for (;;) {
      const end = nextBreak(all, from);
      if (end === undefined) break;
      this.#line(all.slice(from, end.at), events);
      from = end.next;
    }
    all = all.slice(from);
    if (all.length + this.#length > MAX_EVENT_CHARACTERS) throw new RangeError("an event of the stream is too long");
    this.#rest = all;
    return events;
  }

  #line(line: string, events: ServerSentEvent[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#data = [];
      this.#event = "";
      this.#length = 0;
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon); // a comment has an empty one
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") {
      this.#data.push(value);
      this.#length += value.length;
    } else if (field === "event") this.#event = value;
  }
}

function nextBreak(text: string, from: number): { at: number; next: number } | undefined {
  for (let at = from; at < text.length; at++) {
    const character = text.charCodeAt(at);
    if (character === 10) return { at, next: at + 1 };
    if (character === 13) {
      if (at + 1 === text.length) return undefined; // the line feed may come with the next chunk
      return { at, next: text.charCodeAt(at + 1) === 10 ? at + 2 : at + 1 };
    }
  }
  return undefined;
}

/** The events of a body. What stands after the last blank line is none: the stream was cut off in it. */
export async function* eventsOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerSentEvent, void, undefined> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const parser = new EventParser();
  for await (const chunk of chunks) yield* parser.push(decoder.decode(chunk, { stream: true }));
  yield* parser.push(decoder.decode());
}
