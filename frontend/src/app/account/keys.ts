import type { ApiKey, ApiKeyRequest } from "farlabs";
import { count, far } from "@/lib/format";
import { readAmount } from "./amount";

export type Scope = ApiKey["scopes"][number];

/** What a key can be allowed to do, in words. */
export const SCOPES: Readonly<Record<Exclude<Scope, "operator">, { name: string; meaning: string }>> = {
  inference: { name: "Ask models", meaning: "Requests, jobs, embeddings, payment channels. It spends your money." },
  "account:read": { name: "Read the account", meaning: "Balance, deposits, usage, the list of keys." },
  "account:write": { name: "Change the account", meaning: "Credit deposits, revoke keys." },
  provider: { name: "Nodes and earnings", meaning: "What your nodes do and earn, and claiming them." },
};

export const LIVES = { never: "Never", 30: "After 30 days", 90: "After 90 days", 365: "After a year" } as const;
export type Life = keyof typeof LIVES;

export interface KeyForm {
  name: string;
  scopes: readonly Scope[];
  life: `${Life}`;
  farPerDay: string;
  requestsPerMinute: string;
}

export const NEW_KEY: KeyForm = { name: "", scopes: ["inference"], life: "never", farPerDay: "", requestsPerMinute: "" };

export type KeyProblems = Partial<Record<keyof KeyForm, string>>;

const LONGEST_NAME = 100;
const MOST_PER_MINUTE = 1_000_000;
const DAY_MS = 86_400_000;

/** What the gateway is asked for, or what is wrong with the form, by its field. */
export function requestOf(form: KeyForm, now: number): { request: ApiKeyRequest } | { problems: KeyProblems } {
  const problems: KeyProblems = {};
  const name = form.name.trim();
  if (name === "") problems.name = "A name, by which you know it again.";
  else if (name.length > LONGEST_NAME) problems.name = `At most ${LONGEST_NAME} characters.`;
  if (form.scopes.length === 0) problems.scopes = "It must be allowed to do something.";
  const spend = readAmount(form.farPerDay);
  if (spend.problem !== undefined) problems.farPerDay = spend.problem;
  else if (spend.units !== undefined && spend.units > BigInt(Number.MAX_SAFE_INTEGER)) problems.farPerDay = "That is more than can be counted: leave it empty for no limit.";
  const rate = form.requestsPerMinute.trim() === "" ? null : Number(form.requestsPerMinute);
  if (rate !== null && !(Number.isInteger(rate) && rate >= 1 && rate <= MOST_PER_MINUTE)) {
    problems.requestsPerMinute = `A whole number from 1 to ${count(MOST_PER_MINUTE)}.`;
  }
  if (Object.keys(problems).length > 0) return { problems };
  return {
    request: {
      name,
      scopes: [...form.scopes],
      expires_at: form.life === "never" ? null : new Date(now + Number(form.life) * DAY_MS).toISOString(),
      limits: { units_per_day: spend.units === undefined ? null : Number(spend.units), requests_per_minute: rate },
    },
  };
}

/** Whether a key counts. */
export function stateOf({ revoked_at: revoked, expires_at: expires }: Pick<ApiKey, "revoked_at" | "expires_at">, now: number): "active" | "revoked" | "expired" {
  if (revoked !== null) return "revoked";
  return expires !== null && Date.parse(expires) <= now ? "expired" : "active";
}

/** Those that count before the others; else as the gateway sorts them, the newest first. */
export function sorted(keys: readonly ApiKey[], now: number): ApiKey[] {
  return keys.toSorted((one, other) => Number(stateOf(one, now) !== "active") - Number(stateOf(other, now) !== "active"));
}

/** What limits a key has, in words; a key without has those of its account. */
export function limitsOf({ units_per_day: units, requests_per_minute: rate }: ApiKey["limits"]): string {
  const parts = [
    ...(units === null || units === undefined ? [] : [`${far(units)} a day`]),
    ...(rate === null || rate === undefined ? [] : [`${count(rate)} ${rate === 1 ? "request" : "requests"} a minute`]),
  ];
  return parts.length === 0 ? "those of the account" : parts.join(", ");
}

export function mayOf(scopes: readonly Scope[]): string {
  return scopes.map((scope) => (scope === "operator" ? "Operate" : SCOPES[scope].name).toLowerCase()).join(", ");
}
