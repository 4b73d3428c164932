"use client";

import { useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";

const MONEY = ["balance", "holdings", "deposits", "channels"];

/** Asks anew for everything that a payment changes. */
export function useRefresh(): () => Promise<void> {
  const queries = useQueryClient();
  return useCallback(
    async () => void (await Promise.all(MONEY.map((name) => queries.invalidateQueries({ queryKey: [name] })))),
    [queries],
  );
}
