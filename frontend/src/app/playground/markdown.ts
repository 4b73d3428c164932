import { lexer, type MarkedToken, type Token, type Tokens } from "marked";

/** A piece of an answer, as it is to be shown. HTML that a model writes is text like any other. */
export type Block =
  | { kind: "paragraph" | "heading" | "quote"; children: Block[] }
  | { kind: "code"; text: string; language: string }
  | { kind: "list"; start: number | undefined; items: Block[][] }
  | { kind: "table"; header: Block[][]; rows: Block[][][] }
  | { kind: "rule" | "break" }
  | { kind: "text"; text: string }
  | { kind: "strong" | "emphasis" | "deleted"; children: Block[] }
  | { kind: "inline code"; text: string }
  | { kind: "link"; href: string; children: Block[] };

/** Reads Markdown (CommonMark with GitHub's tables). Images become links: nothing is fetched from anywhere. */
export function blocksOf(text: string): Block[] {
  return lexer(text).flatMap(blockOf);
}

/** Where a link may lead: the web and mail. Undefined: nowhere. */
export function safeHref(href: string): string | undefined {
  try {
    const { protocol } = new URL(href);
    return ["http:", "https:", "mailto:"].includes(protocol) ? href : undefined;
  } catch {
    return undefined; // relative to this page, which no answer knows
  }
}

function blockOf(token: Token): Block | Block[] {
  const known = token as MarkedToken; // the lexer is extended by nobody
  switch (known.type) {
    case "paragraph":
      return { kind: "paragraph", children: within(known) };
    case "heading":
      return { kind: "heading", children: within(known) };
    case "blockquote":
      return { kind: "quote", children: within(known) };
    case "code":
      return { kind: "code", text: known.text, language: known.lang?.split(/\s/)[0] ?? "" };
    case "list": {
      const start = known.ordered && known.start !== "" ? known.start : undefined;
      return { kind: "list", start, items: known.items.map((item) => item.tokens.flatMap(blockOf)) };
    }
    case "table":
      return {
        kind: "table",
        header: known.header.map(within),
        rows: known.rows.map((row) => row.map(within)),
      };
    case "hr":
      return { kind: "rule" };
    case "br":
      return { kind: "break" };
    case "strong":
      return { kind: "strong", children: within(known) };
    case "em":
      return { kind: "emphasis", children: within(known) };
    case "del":
      return { kind: "deleted", children: within(known) };
    case "codespan":
      return { kind: "inline code", text: known.text };
    case "link":
    case "image":
      return linkOf(known);
    case "text":
      return known.tokens === undefined ? { kind: "text", text: resolved(known.text) } : within(known);
    case "escape":
      return { kind: "text", text: known.text };
    case "checkbox":
      return { kind: "text", text: known.checked ? "☑ " : "☐ " };
    case "space":
    case "def":
      return [];
    default:
      return { kind: "text", text: token.raw };
  }
}

function linkOf(token: Tokens.Link | Tokens.Image): Block | Block[] {
  const href = safeHref(token.href);
  const told: Block[] = token.type === "image" ? [{ kind: "text", text: token.text || token.href }] : within(token);
  return href === undefined ? told : { kind: "link", href, children: told };
}

function within({ tokens }: { tokens?: Token[] | undefined }): Block[] {
  return (tokens ?? []).flatMap(blockOf);
}

const REFERENCE = /&(?:#(\d{1,7})|#x([\da-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi;
const NAMED: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** With the characters that are written by name or number, of which the lexer leaves the reading to browsers. */
function resolved(text: string): string {
  return text.replace(REFERENCE, (reference, decimal?: string, hex?: string, name?: string) => {
    if (name !== undefined) return NAMED[name.toLowerCase()] ?? reference;
    const code = decimal === undefined ? Number.parseInt(hex ?? "", 16) : Number(decimal);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd";
  });
}
