"use client";

import type { ChatOptions, FarLabsClient, Place } from "farlabs";
import { type Dispatch, useCallback, useEffect, useRef, useState } from "react";
import { billOfDone } from "./bill";
import type { Act } from "./conversation";
import { troubleOf } from "./trouble";

/** What comes is shown so often, however quickly it comes. */
const SHOWN_EVERY_MS = 50;

/** An answer under way. */
export interface Live {
  answer: string;
  model: string;
  /** When something came last: milliseconds of unix time. */
  heardAt: number;
  /** Of a request that waits for its turn. */
  place?: Place | undefined;
}

export interface Answering {
  live: Live | undefined;
  /** Ask; the conversation is told what comes. */
  ask: (answer: string, question: ChatOptions) => Promise<void>;
  /** Hang up. What has come until then is charged. */
  stop: () => void;
}

/** One answer at a time, from the gateway into the conversation. Leaving the page hangs up. */
export function useAnswering(client: FarLabsClient, dispatch: Dispatch<Act>): Answering {
  const [live, setLive] = useState<Live>();
  const hangUp = useRef<AbortController>(undefined);
  const stop = useCallback(() => hangUp.current?.abort(), []);
  useEffect(() => stop, [stop]);

  const ask = useCallback(
    async (answer: string, question: ChatOptions) => {
      const controller = new AbortController();
      hangUp.current = controller;
      const { model } = question;
      setLive({ answer, model, heardAt: Date.now() });
      // Refusals are told at once, with their countdown, rather than waited out in silence.
      const onWait = (place: Place) => setLive({ answer, model, heardAt: Date.now(), place });
      const generation = client.chat({ ...question, signal: controller.signal, maxRetries: 0, onWait });
      const requestId = () => generation.requestId ?? null;
      let unseen = "";
      let timer: ReturnType<typeof setTimeout> | undefined;
      const show = () => {
        timer = undefined;
        dispatch({ type: "came", answer, text: unseen, requestId: requestId() });
        unseen = "";
        setLive({ answer, model, heardAt: Date.now() });
      };
      const end = () => {
        clearTimeout(timer);
        if (unseen !== "") show();
        setLive(undefined);
      };
      try {
        for await (const token of generation) {
          unseen += token;
          timer ??= setTimeout(show, SHOWN_EVERY_MS);
        }
        end();
        const { done } = generation;
        dispatch({ type: "ended", answer, phase: "done", requestId: requestId(), ...(done && { bill: billOfDone(done) }) });
      } catch (error) {
        end();
        if (controller.signal.aborted) dispatch({ type: "ended", answer, phase: "stopped", requestId: requestId() });
        else dispatch({ type: "ended", answer, phase: "failed", requestId: requestId(), trouble: troubleOf(error, Date.now()) });
      }
    },
    [client, dispatch],
  );
  return { live, ask, stop };
}
