import {
  AuthenticationError,
  ConnectionError,
  FarLabsError,
  PaymentRequiredError,
  RateLimitError,
  ServerError,
  StreamError,
  TimeoutError,
} from "farlabs";
import { explain } from "@/lib/explain";

/** Why there is no answer, or no whole one; and what can be done about it. */
export interface Trouble {
  kind: "money" | "too_much" | "sign_in" | "unreachable" | "cut" | "failed" | "refused" | "left";
  message: string;
  code: string | null;
  requestId: string | null;
  /** When asking again can help, as milliseconds of unix time. */
  retryAt: number | null;
}

const TITLES: Readonly<Record<Trouble["kind"], string>> = {
  money: "This cannot be paid",
  too_much: "Too much at once",
  sign_in: "You are not signed in",
  unreachable: "The gateway does not answer",
  cut: "The answer was cut off",
  failed: "The answer failed",
  refused: "This was not answered",
  left: "The page was left before the answer ended",
};

export function titleOf({ kind }: Trouble): string {
  return TITLES[kind];
}

export function troubleOf(error: unknown, now: number): Trouble {
  const told = error instanceof FarLabsError ? error : undefined;
  return {
    kind: kindOf(error),
    message: messageOf(error),
    code: told?.code ?? null,
    requestId: told?.requestId ?? null,
    retryAt: told?.retryAfter === undefined ? null : now + 1000 * told.retryAfter,
  };
}

/** What happened to an answer that was under way when the page was left. */
export const LEFT: Trouble = { kind: "left", message: "What had come until then is charged.", code: null, requestId: null, retryAt: null };

/** Whole seconds until asking again can help; 0: it can now. */
export function secondsLeft({ retryAt }: Trouble, now: number): number {
  return retryAt === null ? 0 : Math.max(0, Math.ceil((retryAt - now) / 1000));
}

/** The same refusals by their codes, as they come when the stream had begun while the request waited for its turn. */
const MONEY: ReadonlySet<string> = new Set(["insufficient_balance", "allowance_too_low", "unsettled_limit", "payment_required"]);
const TOO_MUCH: ReadonlySet<string> = new Set(["queue_full", "queue_timeout", "rate_limited", "key_limit_reached"]);

function kindOf(error: unknown): Trouble["kind"] {
  const code = error instanceof FarLabsError ? error.code : "";
  if (error instanceof PaymentRequiredError || MONEY.has(code)) return "money";
  if (error instanceof RateLimitError || TOO_MUCH.has(code)) return "too_much";
  if (error instanceof AuthenticationError) return "sign_in";
  if (error instanceof ConnectionError || error instanceof TimeoutError) return "unreachable";
  // An answer that broke off at the nodes is told within the stream; one that breaks off on the way has no such word.
  if (error instanceof StreamError) return error.code === "stream_broken" ? "cut" : "failed";
  return error instanceof ServerError ? "failed" : "refused";
}

function messageOf(error: unknown): string {
  if (error instanceof AuthenticationError && error.code === "no_credential") return "Connect your wallet, sign in and ask again.";
  if (error instanceof ConnectionError) return "Is it running, and are you online?";
  if (error instanceof StreamError && error.code === "stream_broken") {
    return "The connection to the gateway broke. What had come stays here, and no more than that is charged.";
  }
  // The wait is counted down beside it.
  if (error instanceof RateLimitError) return explain(new FarLabsError(error.message, { code: error.code }));
  return explain(error);
}
