"use client";

import { useEffect, useState } from "react";
import { Button } from "./Button";

/** Puts a text into the clipboard, and says so. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [said, setSaid] = useState("");
  useEffect(() => {
    if (said === "") return;
    const timer = setTimeout(() => setSaid(""), 2_000);
    return () => clearTimeout(timer);
  }, [said]);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied");
    } catch {
      setSaid("Select it and copy it by hand");
    }
  }
  return (
    <>
      <Button kind="quiet" onClick={copy} aria-label={said === "" ? `Copy ${what}` : `${said}: ${what}`}>
        {said || "Copy"}
      </Button>
      <span role="status" className="sr-only">{said}</span>
    </>
  );
}

/** A command or a piece of code, with a button that copies it. */
export function CodeBlock({ code, what }: { code: string; what: string }) {
  return (
    <div className="flex flex-col items-stretch gap-2 rounded-lg border border-line bg-raised p-3 sm:flex-row sm:items-start">
      <pre tabIndex={0} aria-label={what} className="min-w-0 overflow-x-auto py-2 font-mono text-sm sm:flex-1">
        <code>{code}</code>
      </pre>
      <CopyButton text={code} what={what} />
    </div>
  );
}
