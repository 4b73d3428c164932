import type { Session } from "farlabs";

/** In the fragment of an address, which no server gets to see. */
const HANDED = "session";

const LOOPBACK: readonly string[] = ["127.0.0.1", "localhost", "[::1]"];

/** Whether there is one in the address, taken or not: it is not to stay there, where it could be copied by accident. */
export function isHandedAt(hash: string): boolean {
  return new URLSearchParams(hash.slice(1)).has(HANDED);
}

/**
 * A session that comes with the address, `#session=<token>`, as the demo prints it. Taken on this machine's own gateway
 * alone: elsewhere a link could make its reader use the account of whoever made it.
 */
export function handedSession({ hash, hostname }: { hash: string; hostname: string }): Session | undefined {
  if (!LOOPBACK.includes(hostname)) return undefined;
  const token = new URLSearchParams(hash.slice(1)).get(HANDED);
  const claims = token === null ? undefined : claimsOf(token);
  if (token === null || typeof claims?.sub !== "string" || typeof claims.exp !== "number") return undefined;
  const expiresAt = new Date(1000 * claims.exp);
  return Number.isNaN(expiresAt.getTime()) ? undefined : { token, walletAddress: claims.sub, expiresAt: expiresAt.toISOString() };
}

/** What a token says (RFC 7519). Whether it is true is for the gateway to say. */
function claimsOf(token: string): { sub?: unknown; exp?: unknown } | undefined {
  try {
    const payload = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const claims: unknown = JSON.parse(atob(payload));
    return typeof claims === "object" && claims !== null ? claims : undefined;
  } catch {
    return undefined;
  }
}
