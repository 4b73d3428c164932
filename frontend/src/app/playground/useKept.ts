"use client";

import { useCallback, useEffect, useRef, useState } from "react";
import { type Kept, read, written } from "./keep";

const NAME = "far-playground";
/** Not each time that something comes, or a long answer would be written down again for every word of it. */
const WRITTEN_EVERY_MS = 500;

/**
 * Keeps the conversation in this tab (`sessionStorage`), and gives back once what was kept before. False: it does not
 * fit there, or the browser keeps nothing.
 */
export function useKept(kept: Kept, onRead: (kept: Kept) => void): boolean {
  const [isKept, setKept] = useState(true);
  const latest = useRef<Kept>(undefined);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const restore = useRef(onRead);
  const write = useCallback(() => {
    clearTimeout(timer.current);
    timer.current = undefined;
    if (latest.current !== undefined) setKept(store(written(latest.current)));
  }, []);
  useEffect(() => {
    if (latest.current === undefined) {
      const found = read(stored());
      if (found !== undefined) restore.current(found);
    } else {
      timer.current ??= setTimeout(write, WRITTEN_EVERY_MS);
    }
    latest.current = kept;
  }, [kept, write]);
  useEffect(() => {
    window.addEventListener("pagehide", write);
    return () => {
      window.removeEventListener("pagehide", write);
      write();
    };
  }, [write]);
  return isKept;
}

function stored(): string | null {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}

function store(text: string): boolean {
  try {
    sessionStorage.setItem(NAME, text);
    return true;
  } catch {
    return false;
  }
}
