import type { CallOptions, Transport } from "../transport.js";

export interface SignOutOptions extends CallOptions {
  /** All tokens of the wallet, on whatever machine. */
  everywhere?: boolean;
  /** With `everywhere`: its API keys as well. */
  revokeKeys?: boolean;
}

/** The token counts no more, and is forgotten. Nothing happens without one. */
export async function signOut(transport: Transport, options: SignOutOptions = {}): Promise<void> {
  const { everywhere = false, revokeKeys = false, ...call } = options;
  if (transport.session === undefined) return;
  if (everywhere) {
    const body = { revoke_keys: revokeKeys };
    await transport.call({ ...call, method: "POST", path: "/api/auth/logout/everywhere", body });
  } else {
    await transport.call({ ...call, method: "POST", path: "/api/auth/logout" });
  }
  transport.useSession(undefined);
}
