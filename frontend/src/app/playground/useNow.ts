"use client";

import { useEffect, useState } from "react";

/** The time, every second, while it is looked at. Milliseconds of unix time. */
export function useNow(isLookedAt: boolean): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!isLookedAt) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [isLookedAt]);
  return now;
}
