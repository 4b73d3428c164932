import { AuthenticationError } from "../errors.js";
import type { CallOptions, Transport } from "../transport.js";

export interface SignOutOptions extends CallOptions {
  /** All tokens of the wallet, on whatever machine. */
  everywhere?: boolean;
  /** With `everywhere`: its API keys as well. */
  revokeKeys?: boolean;
}

/** The token counts no more, and is forgotten. Nothing happens without one, and the wallet is asked for nothing. */
export async function signOut(transport: Transport, options: SignOutOptions = {}): Promise<void> {
  const { everywhere = false, revokeKeys = false, ...call } = options;
  const { session } = transport;
  if (session === undefined) return;
  const how = { method: "POST", auth: "none", headers: { authorization: `Bearer ${session.token}` } } as const;
  try {
    if (everywhere) {
      const body = { revoke_keys: revokeKeys };
      await transport.call({ ...call, ...how, path: "/api/auth/logout/everywhere", body, repeatable: true });
    } else {
      await transport.call({ ...call, ...how, path: "/api/auth/logout", repeatable: true });
    }
  } catch (error) {
    // Of a token that counts no more there is nothing to end; the others of the wallet may still count.
    if (everywhere || !(error instanceof AuthenticationError)) throw error;
  }
  transport.useSession(undefined);
}
