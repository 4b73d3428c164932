"use client";

import { useEffect, useRef, useState } from "react";
import { type Kept, read, written } from "./keep";

const NAME = "far-playground";
const WRITTEN_AFTER_MS = 500;

/**
 * Keeps the conversation in this tab (`sessionStorage`), and gives back once what was kept before. False: it does not
 * fit there, or the browser keeps nothing.
 */
export function useKept(kept: Kept, onRead: (kept: Kept) => void): boolean {
  const [isKept, setKept] = useState(true);
  const isRead = useRef(false);
  const restore = useRef(onRead);
  useEffect(() => {
    const found = read(stored());
    if (found !== undefined) restore.current(found);
    isRead.current = true;
  }, []);
  useEffect(() => {
    if (!isRead.current) return;
    const timer = setTimeout(() => setKept(store(written(kept))), WRITTEN_AFTER_MS);
    return () => clearTimeout(timer);
  }, [kept]);
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
