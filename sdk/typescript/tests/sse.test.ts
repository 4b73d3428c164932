import { describe, expect, it } from "vitest";
import { EventParser, itemsOf, MAX_EVENT_CHARACTERS, type StreamItem } from "../src/sse.js";
import { allOf } from "./server.js";

const TEXT = "data: Grüße 🐇\n\n: a comment\ndata:one\ndata: two\n\nevent: odd\ndata\n\nid: 7\nretry: 1\n\ndata: last\n\ndata: cut";
const ITEMS: StreamItem[] = [
  { event: "message", data: "Grüße 🐇" },
  { comment: "a comment" },
  { event: "message", data: "one\ntwo" },
  { event: "odd", data: "" },
  { event: "message", data: "last" },
];

async function* chunksOf(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}

async function parsed(...chunks: Uint8Array[]): Promise<StreamItem[]> {
  return allOf(itemsOf(chunksOf(...chunks)));
}

describe.each([
  ["line feeds", "\n"],
  ["carriage returns", "\r"],
  ["both", "\r\n"],
])("lines that end with %s", (_, end) => {
  const bytes = new TextEncoder().encode(`\uFEFF${TEXT.replaceAll("\n", end)}`);

  it("are read in one piece", async () => {
    expect(await parsed(bytes)).toEqual(ITEMS);
  });

  it("are read however they are split in two", async () => {
    for (let at = 0; at <= bytes.length; at++) {
      expect(await parsed(bytes.subarray(0, at), bytes.subarray(at)), `split at ${at}`).toEqual(ITEMS);
    }
  });

  it("are read byte by byte, and with empty chunks between", async () => {
    const chunks = Array.from(bytes, (_, at) => [bytes.subarray(at, at + 1), new Uint8Array()]).flat();
    expect(await parsed(...chunks)).toEqual(ITEMS);
  });
});

describe("an event parser", () => {
  it("gives an event as soon as its blank line has begun to end", () => {
    const parser = new EventParser();
    expect(parser.push("data: a\r\r")).toEqual([{ event: "message", data: "a" }]);
    expect(parser.push("\ndata: b\r\n\r")).toEqual([{ event: "message", data: "b" }]);
    expect(parser.push("\n")).toEqual([]);
  });

  it("takes one space away, and no more", () => {
    expect(new EventParser().push("data:  a\n\ndata:b:c\n\n")).toMatchObject([{ data: " a" }, { data: "b:c" }]);
  });

  it("takes a byte order mark for one at the beginning alone", () => {
    const parser = new EventParser();
    expect(parser.push("\uFEFFdata: a\n\n\uFEFFdata: b\n\ndata: \uFEFFc\n\n")).toMatchObject([{ data: "a" }, { data: "\uFEFFc" }]);
  });

  it("forgets the name of an event that had no data", () => {
    expect(new EventParser().push("event: a\n\ndata: b\n\n")).toEqual([{ event: "message", data: "b" }]);
  });

  it("refuses an event that never ends, in one line or in many", () => {
    const piece = "x".repeat(MAX_EVENT_CHARACTERS / 4);
    const endless = new EventParser();
    expect(() => Array.from({ length: 5 }, () => endless.push(piece))).toThrow(RangeError);
    const many = new EventParser();
    expect(() => Array.from({ length: 5 }, () => many.push(`data: ${piece}\n`))).toThrow(RangeError);
  });

  it("lives with comments without end", () => {
    const parser = new EventParser();
    const comment = `: ${"x".repeat(MAX_EVENT_CHARACTERS / 4)}\n`;
    for (let count = 0; count < 6; count++) expect(parser.push(comment)).toHaveLength(1);
    expect(parser.push("data: a\n\n")).toHaveLength(1);
  });

  it("takes what is no UTF-8 for the sign that stands for it", async () => {
    const bytes = Uint8Array.of(...new TextEncoder().encode("data: "), 0xff, 0x0a, 0x0a);
    expect(await parsed(bytes)).toEqual([{ event: "message", data: "\uFFFD" }]);
  });
});
