"use client";

import { useEffect, useState } from "react";

/** The time, every second or as often as is said, while it is looked at. Milliseconds of unix time. */
export function useNow(isLookedAt: boolean, everyMs = 1_000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!isLookedAt) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [isLookedAt, everyMs]);
  return now;
}
