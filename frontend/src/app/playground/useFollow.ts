"use client";

import { type RefObject, useCallback, useEffect, useRef } from "react";

const NEAR_PX = 160;

export interface Following {
  /** What is kept in sight: it stands behind all that is added. */
  end: RefObject<HTMLDivElement | null>;
  /** Go there, wherever the reader is. */
  follow: () => void;
}

/** Keeps the end of a text in sight while something is added to it, as long as the reader stays there. */
export function useFollow(added: unknown): Following {
  const end = useRef<HTMLDivElement>(null);
  const isFollowed = useRef(false);
  const follow = useCallback(() => {
    isFollowed.current = true;
  }, []);
  useEffect(() => {
    const scrolled = () => {
      const bottom = end.current?.getBoundingClientRect().bottom ?? 0;
      isFollowed.current = bottom <= window.innerHeight + NEAR_PX;
    };
    window.addEventListener("scroll", scrolled, { passive: true });
    return () => window.removeEventListener("scroll", scrolled);
  }, []);
  useEffect(() => {
    if (isFollowed.current) end.current?.scrollIntoView({ block: "end" });
  }, [added]);
  return { end, follow };
}
