"use client";

import { useQuery, type UseQueryResult } from "@tanstack/react-query";
import type { Quote } from "farlabs";
import { useSession } from "@/lib/session";
import { type Conversation, messagesOf } from "./conversation";
import { useDebounced } from "./useDebounced";
import type { Wishes } from "./wishes";

const ASKED_AFTER_MS = 600;
/** A quote that ends so soon may be too old when it arrives. */
const MARGIN_MS = 5_000;

export interface Quoting {
  query: UseQueryResult<Quote>;
  /** Whether it is about what stands there now. */
  isCurrent: boolean;
}

/** How many tokens a question has and what it can cost at most, once nobody has typed for a moment. */
export function useQuote(draft: string, earlier: Conversation, wishes: Wishes, model: string | undefined): Quoting {
  const { client, wallet, isSignedIn } = useSession();
  const settled = useDebounced(draft, ASKED_AFTER_MS);
  const maxTokens = wishes.maxTokens.trim() === "" ? undefined : Number(wishes.maxTokens);
  const tier = wishes.tier === "" ? undefined : wishes.tier;
  const messages = messagesOf(wishes.system, earlier, settled);
  const isWanted = wishes.quotes && isSignedIn && model !== undefined && settled.trim() !== "";
  const query = useQuery({
    queryKey: ["quote", wallet, model, tier, maxTokens, messages],
    queryFn: ({ signal }) => client.quote({ model: model ?? "", messages, maxTokens, tier, signal, maxRetries: 0 }),
    enabled: isWanted,
    staleTime: 10_000,
    gcTime: 30_000,
    retry: false,
  });
  return { query, isCurrent: isWanted && settled === draft };
}

/** The name of a quote that will still be good when it arrives. */
export function usable(quote: Quote | undefined, now: number): string | undefined {
  return quote !== undefined && Date.parse(quote.expires_at) - now > MARGIN_MS ? quote.quote_id : undefined;
}
