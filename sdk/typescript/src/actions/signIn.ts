import type { Signer } from "../signer.js";
import type { CallOptions, Transport } from "../transport.js";

/** A bearer token and how long it counts. */
export interface Session {
  token: string;
  /** ISO 8601. */
  expiresAt: string;
  walletAddress: string;
}

/**
 * Sign in with a wallet (EIP-4361, https://eips.ethereum.org/EIPS/eip-4361): the gateway writes the message, the wallet
 * signs it. Requests do this by themselves when they have to.
 *
 * @throws AuthenticationError the gateway does not take the signature.
 */
export async function signIn(transport: Transport, signer: Signer, options: CallOptions = {}): Promise<Session> {
  const offer = await transport.call<{ message: string }>({
    ...options,
    method: "POST",
    path: "/api/auth/nonce",
    auth: "none",
    body: { wallet_address: signer.address },
    repeatable: true,
  });
  const signature = await signer.signMessage({ message: offer.body.message });
  const login = await transport.call<{ token: string; expires_at: string; wallet_address: string }>({
    ...options,
    method: "POST",
    path: "/api/auth/login",
    auth: "none",
    body: { wallet_address: signer.address, message: offer.body.message, signature },
  });
  const { token, expires_at: expiresAt, wallet_address: walletAddress } = login.body;
  const session = { token, expiresAt, walletAddress };
  transport.useSession(session);
  return session;
}
