import { FarLabsError, RateLimitError } from "farlabs";

/** What went wrong, in a sentence that says what to do. */
export function explain(error: unknown): string {
  if (error instanceof RateLimitError && error.retryAfter !== undefined) {
    return `${sentence(error.message)} Try again in ${Math.ceil(error.retryAfter)} s.`;
  }
  if (error instanceof FarLabsError) return sentence(error.message);
  if (error instanceof Error) {
    if (/user (rejected|denied)/i.test(error.message)) return "You said no in your wallet. Nothing has happened.";
    const told = "shortMessage" in error && typeof error.shortMessage === "string" ? error.shortMessage : error.message;
    return sentence(told);
  }
  return "Something went wrong that has no name. Load the page again.";
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
