"use client";

import { useQueryClient } from "@tanstack/react-query";
import type { Model } from "farlabs";
import { type Dispatch, useEffect, useRef } from "react";
import type { Act } from "./conversation";
import type { Live } from "./useAnswering";

const LOOKED_AT_EVERY_MS = 1_000;

/**
 * Notes nodes that go away while an answer is written. A stream goes on without a word when one is replaced, but the
 * list of models has one less.
 */
export function useLosses(live: Live | undefined, models: readonly Model[], dispatch: Dispatch<Act>): void {
  const queries = useQueryClient();
  const before = useRef({ answer: "", nodes: 0 });
  const answer = live?.answer;
  const nodes = models.find(({ id }) => id === live?.model)?.active_nodes;

  useEffect(() => {
    if (answer === undefined) return;
    const timer = setInterval(() => void queries.invalidateQueries({ queryKey: ["models"] }), LOOKED_AT_EVERY_MS);
    return () => clearInterval(timer);
  }, [answer, queries]);

  useEffect(() => {
    if (answer === undefined || nodes === undefined) return;
    if (before.current.answer !== answer) before.current = { answer, nodes };
    const lost = before.current.nodes - nodes;
    if (lost > 0) dispatch({ type: "lost", answer, nodes: lost });
  }, [answer, nodes, dispatch]);
}
