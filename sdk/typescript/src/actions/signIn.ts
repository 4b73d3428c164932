import { AuthenticationError } from "../errors.js";
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
 * @throws AuthenticationError the gateway does not take the signature; or `wrong_message`, `wrong_wallet`,
 *   `wrong_domain`: what it wants signed is something else, and is not signed.
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
  const { message } = offer.body;
  checkMessage(message, signer.address, transport);
  const signature = await signer.signMessage({ message });
  const login = await transport.call<{ token: string; expires_at: string; wallet_address: string }>({
    ...options,
    method: "POST",
    path: "/api/auth/login",
    auth: "none",
    body: { wallet_address: signer.address, message, signature },
  });
  const { token, expires_at: expiresAt, wallet_address: walletAddress } = login.body;
  const session = { token, expiresAt, walletAddress };
  transport.useSession(session);
  return session;
}

const FORM = /^(\S{1,255}) wants you to sign in with your Ethereum account:\n(0x[0-9a-fA-F]{40})\n\n(?:[ -~]{1,1024}\n)?\nURI: /;
const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];

/**
 * A gateway could hand on the message of another one and sign in there, so the host that it names has to be the one that
 * was asked, or `signInDomain` where that is given. On one's own machine any name will do.
 */
function checkMessage(message: string, address: string, { url, signInDomain }: Transport): void {
  const [, domain, wallet] = FORM.exec(message) ?? [];
  if (domain === undefined || wallet === undefined) {
    throw refused("wrong_message", "the gateway wants a text signed that is no sign-in message");
  }
  if (wallet.toLowerCase() !== address.toLowerCase()) {
    throw refused("wrong_wallet", `the gateway wants ${wallet} signed in, not ${address}`);
  }
  const { host, hostname } = new URL(url);
  const expected = signInDomain ?? host;
  const isOwn = signInDomain === undefined && LOOPBACK.includes(hostname);
  if (domain.toLowerCase() !== expected.toLowerCase() && !isOwn) {
    const told = `the gateway at ${expected} wants you signed in at ${domain}: if that is right, give signInDomain`;
    throw refused("wrong_domain", told);
  }
}

function refused(code: string, message: string): AuthenticationError {
  return new AuthenticationError(message, { code });
}
