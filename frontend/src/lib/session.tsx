"use client";

import { FarLabsClient, type Session, type Signer } from "farlabs";
import { walletClientSigner } from "farlabs/viem";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";
import { type Config, useConfig, useConnection } from "wagmi";
import { getWalletClient, watchConnection } from "wagmi/actions";
import { gatewayUrl } from "./gateway";
import { handedSession, isHandedAt } from "./handed";

interface SessionState {
  /** Asks the gateway as whoever is connected; signs in when something needs that. */
  client: FarLabsClient;
  /** The connected wallet, or the one that a handed session is of: that one can sign nothing. */
  wallet: `0x${string}` | undefined;
  isSignedIn: boolean;
  /** Signed in by the address of the page (`handed.ts`), without a wallet. */
  isHanded: boolean;
  signIn: () => Promise<void>;
  signOut: () => Promise<void>;
}

const Context = createContext<SessionState | undefined>(undefined);
const KEPT = "far-session";
const HANDED = "far-session-handed";

/** Who one is on this page: the connected wallet, and the token it has signed for. A token outlives a reload, no more. */
export function SessionProvider({ children }: { children: ReactNode }) {
  const config = useConfig();
  const { address } = useConnection();
  const [session, setSession] = useState<Session>();
  const [handed, setHanded] = useState<Session>();

  useEffect(() => {
    const given = handedSession(window.location);
    if (isHandedAt(window.location.hash)) window.history.replaceState(null, "", window.location.pathname + window.location.search);
    if (given !== undefined) keep(HANDED, given);
    setHanded(kept(HANDED));
  }, []);

  useEffect(() => setSession(address === undefined ? undefined : kept(KEPT, address)), [address]);

  const client = useMemo(() => {
    if (address === undefined) {
      const onSession = (next: Session | undefined) => {
        keep(HANDED, next);
        setHanded(next);
      };
      return new FarLabsClient({ url: gatewayUrl(), session: handed, onSession });
    }
    const onSession = (next: Session | undefined) => {
      keep(KEPT, next);
      setSession(next);
    };
    return new FarLabsClient({ url: gatewayUrl(), signer: signerOf(config, address), session: kept(KEPT, address), onSession });
  }, [config, address, handed]);

  const signIn = useCallback(async () => void (await client.signIn()), [client]);
  const signOut = useCallback(() => client.signOut(), [client]);

  const isHanded = address === undefined && handed !== undefined;
  const wallet = address ?? (handed?.walletAddress as `0x${string}` | undefined);
  const isSignedIn = isHanded || (session !== undefined && session.walletAddress.toLowerCase() === address?.toLowerCase());

  const state = { client, wallet, isSignedIn, isHanded, signIn, signOut };
  return <Context.Provider value={state}>{children}</Context.Provider>;
}

export function useSession(): SessionState {
  const state = useContext(Context);
  if (state === undefined) throw new Error("useSession belongs within a SessionProvider");
  return state;
}

/** The connected wallet, which is looked for when it has to sign: after a reload it is back a moment after its address. */
function signerOf(config: Config, address: `0x${string}`): Signer {
  async function wallet(): Promise<Required<Signer>> {
    await reconnected(config);
    // what is signed says itself which chain it is for, if any: the wallet may be on another
    const client = await getWalletClient(config, { account: address, assertChainId: false });
    return walletClientSigner(client as never, address) as Required<Signer>;
  }
  return {
    address,
    signMessage: async (message) => (await wallet()).signMessage(message),
    signTypedData: async (data) => (await wallet()).signTypedData(data),
  };
}

/** Once wagmi knows whether the wallet of before is still there. */
function reconnected(config: Config): Promise<void> {
  return new Promise((resolve) => {
    if (config.state.status !== "reconnecting") return resolve();
    const stop = watchConnection(config, {
      onChange: ({ status }) => {
        if (status === "reconnecting") return;
        stop();
        resolve();
      },
    });
  });
}

function keep(name: string, session: Session | undefined): void {
  if (session === undefined) sessionStorage.removeItem(name);
  else sessionStorage.setItem(name, JSON.stringify(session));
}

/** One that still counts, of this wallet if it is said. */
function kept(name: string, wallet?: string): Session | undefined {
  try {
    const found = JSON.parse(sessionStorage.getItem(name) ?? "null") as Session | null;
    if (found === null || Date.parse(found.expiresAt) <= Date.now()) return undefined;
    return wallet === undefined || found.walletAddress.toLowerCase() === wallet.toLowerCase() ? found : undefined;
  } catch {
    return undefined;
  }
}
