import { Fragment, memo, type ReactNode } from "react";
import { CodeBlock } from "@/components/ui/CopyButton";
import { type Block, blocksOf } from "./markdown";

/** What a model has written. With a caret behind it while it is still writing. */
export const Markdown = memo(function Markdown({ text, hasCaret }: { text: string; hasCaret: boolean }) {
  const caret = hasCaret ? "[&>*:last-child]:after:animate-pulse [&>*:last-child]:after:content-['▍'] [&>*:last-child]:after:text-brand-soft" : "";
  return <div className={`flex min-w-0 flex-col gap-3 break-words ${caret}`}>{shown(blocksOf(text))}</div>;
});

function shown(blocks: readonly Block[]): ReactNode {
  return blocks.map((block, place) => <Fragment key={place}>{one(block)}</Fragment>);
}

function one(block: Block): ReactNode {
  switch (block.kind) {
    case "paragraph":
      return <p className="whitespace-pre-wrap">{shown(block.children)}</p>;
    case "heading": // one level for all: below the heading of the answer, whatever the model thinks of
      return <h4 className="font-semibold">{shown(block.children)}</h4>;
    case "quote":
      return <blockquote className="flex flex-col gap-3 border-l-2 border-line pl-3 text-soft">{shown(block.children)}</blockquote>;
    case "code":
      return <CodeBlock code={block.text} what={block.language === "" ? "code" : `${block.language} code`} />;
    case "list": {
      const items = block.items.map((item, place) => (
        <li key={place} className="pl-1 [&>p+p]:mt-2">{shown(item)}</li>
      ));
      return block.start === undefined ? (
        <ul className="flex list-disc flex-col gap-1 pl-6">{items}</ul>
      ) : (
        <ol start={block.start} className="flex list-decimal flex-col gap-1 pl-6">{items}</ol>
      );
    }
    case "table":
      return (
        <div className="overflow-x-auto" tabIndex={0} role="group" aria-label="Table">
          <table className="border-collapse text-sm">
            <thead>
              <tr>
                {block.header.map((cell, place) => (
                  <th key={place} scope="col" className="border border-line bg-raised px-2 py-1 text-left font-medium">{shown(cell)}</th>
                ))}
              </tr>
            </thead>
            <tbody>
              {block.rows.map((row, place) => (
                <tr key={place}>
                  {row.map((cell, column) => (
                    <td key={column} className="border border-line px-2 py-1">{shown(cell)}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      );
    case "rule":
      return <hr className="border-line" />;
    case "break":
      return <br />;
    case "text":
      return block.text;
    case "strong":
      return <strong className="font-semibold">{shown(block.children)}</strong>;
    case "emphasis":
      return <em>{shown(block.children)}</em>;
    case "deleted":
      return <del>{shown(block.children)}</del>;
    case "inline code":
      return <code className="rounded bg-raised px-1 font-mono text-sm">{block.text}</code>;
    case "link":
      return (
        <a href={block.href} target="_blank" rel="noopener noreferrer nofollow" className="text-brand-soft underline">
          {shown(block.children)}
        </a>
      );
  }
}
