import { expect, test } from "vitest";
import { blocksOf, safeHref } from "@/app/playground/markdown";

test("what models write has a shape", () => {
  expect(blocksOf("# Title\n\nSome **bold** and *soft* `code`.\n\n```python title\nprint(1)\n```")).toEqual([
    { kind: "heading", children: [{ kind: "text", text: "Title" }] },
    {
      kind: "paragraph",
      children: [
        { kind: "text", text: "Some " },
        { kind: "strong", children: [{ kind: "text", text: "bold" }] },
        { kind: "text", text: " and " },
        { kind: "emphasis", children: [{ kind: "text", text: "soft" }] },
        { kind: "text", text: " " },
        { kind: "inline code", text: "code" },
        { kind: "text", text: "." },
      ],
    },
    { kind: "code", text: "print(1)", language: "python" },
  ]);
});

test("lists, tables and quotes", () => {
  expect(blocksOf("3. a\n4. b")).toMatchObject([{ kind: "list", start: 3, items: [[{ text: "a" }], [{ text: "b" }]] }]);
  expect(blocksOf("- [x] a")).toMatchObject([{ kind: "list", start: undefined }]);
  expect(blocksOf("> a")).toMatchObject([{ kind: "quote", children: [{ kind: "paragraph" }] }]);
  expect(blocksOf("| a | b |\n|---|---|\n| 1 | 2 |")).toEqual([
    {
      kind: "table",
      header: [[{ kind: "text", text: "a" }], [{ kind: "text", text: "b" }]],
      rows: [[[{ kind: "text", text: "1" }], [{ kind: "text", text: "2" }]]],
    },
  ]);
});

test("HTML is text like any other", () => {
  const text = JSON.stringify(blocksOf('<script>alert(1)</script>\n\nHi <img src=x onerror="alert(1)"> there'));
  expect(text).toContain("<script>alert(1)</script>");
  expect(text).not.toMatch(/"kind":"(html|image)"/);
});

test("characters that were written as such, by name or by number are what they are", () => {
  const [paragraph] = blocksOf('a < b && c > d \\* &amp; "q" &#8364; &#x20ac; &#0; &#9999999;') as { children: { text: string }[] }[];
  expect(paragraph?.children.map(({ text }) => text).join("")).toBe('a < b && c > d * & "q" € € \ufffd \ufffd');
  expect(blocksOf("`&amp;`")).toEqual([{ kind: "paragraph", children: [{ kind: "inline code", text: "&amp;" }] }]);
});

test("an image is a link to it: nothing is fetched", () => {
  expect(blocksOf("![a cat](https://example.com/cat.png)")).toEqual([
    {
      kind: "paragraph",
      children: [{ kind: "link", href: "https://example.com/cat.png", children: [{ kind: "text", text: "a cat" }] }],
    },
  ]);
});

test.each(["javascript:alert(1)", "data:text/html,x", "vbscript:x", " JaVaScript:alert(1)", "/account", "blob:x", ""])(
  "%s leads nowhere",
  (href) => {
    expect(safeHref(href)).toBeUndefined();
    expect(JSON.stringify(blocksOf(`[x](<${href}>)`))).not.toContain('"link"');
  },
);

test("any text can be read, also while it is only half there", () => {
  const whole = "# A\n\n1. *b* [c](https://d.e)\n   - f\n\n```js\ng()\n```\n| h | i |\n|---|---|\n| j | **k** |\n\n> l ~~m~~ ![n](o)\n\n---\n[p]: q";
  for (let end = 0; end <= whole.length; end++) expect(() => blocksOf(whole.slice(0, end))).not.toThrow();
});
