"use client";

import { useEffect, useRef } from "react";

const NEAR_PX = 160;

/** Keeps the end of the page in sight while something is added to it, as long as the reader is there. */
export function useFollow(added: unknown): void {
  const isAtEnd = useRef(true);
  useEffect(() => {
    const scrolled = () => {
      const { scrollHeight } = document.documentElement;
      isAtEnd.current = window.scrollY + window.innerHeight >= scrollHeight - NEAR_PX;
    };
    scrolled();
    window.addEventListener("scroll", scrolled, { passive: true });
    return () => window.removeEventListener("scroll", scrolled);
  }, []);
  useEffect(() => {
    if (isAtEnd.current) window.scrollTo({ top: document.documentElement.scrollHeight });
  }, [added]);
}
