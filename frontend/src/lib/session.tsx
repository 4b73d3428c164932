"use client";

import { FarLabsClient, type Session } from "farlabs";
import { walletClientSigner } from "farlabs/viem";
import { createContext, type ReactNode, useCallback, useContext, useEffect, useMemo, useState } from "react";
import { useConnection, useWalletClient } from "wagmi";
import { gatewayUrl } from "./gateway";

interface SessionState {
  /** Asks the gateway as whoever is connected; signs in when something needs that. */
  client: FarLabsClient;
  wallet: `0x${string}` | undefined;
  isSignedIn: boolean;
  signIn: () => Promise<void>;
  signOut: () => Promise<void>;
}

const Context = createContext<SessionState | undefined>(undefined);
const KEPT = "far-session";

/** Who one is on this page: the connected wallet, and the token it has signed for. A token outlives a reload, no more. */
export function SessionProvider({ children }: { children: ReactNode }) {
  const { address } = useConnection();
  const { data: walletClient } = useWalletClient();
  const [session, setSession] = useState<Session>();

  useEffect(() => setSession(address === undefined ? undefined : kept(address)), [address]);

  const client = useMemo(() => {
    const onSession = (next: Session | undefined) => {
      setSession(next);
      if (next === undefined) sessionStorage.removeItem(KEPT);
      else sessionStorage.setItem(KEPT, JSON.stringify(next));
    };
    if (address === undefined || walletClient === undefined) return new FarLabsClient({ url: gatewayUrl() });
    const signer = walletClientSigner(walletClient as never, address);
    return new FarLabsClient({ url: gatewayUrl(), signer, session: kept(address), onSession });
  }, [address, walletClient]);

  const signIn = useCallback(async () => void (await client.signIn()), [client]);
  const signOut = useCallback(() => client.signOut(), [client]);
  const isSignedIn = session !== undefined && session.walletAddress.toLowerCase() === address?.toLowerCase();

  const state = { client, wallet: address, isSignedIn, signIn, signOut };
  return <Context.Provider value={state}>{children}</Context.Provider>;
}

export function useSession(): SessionState {
  const state = useContext(Context);
  if (state === undefined) throw new Error("useSession belongs within a SessionProvider");
  return state;
}

function kept(wallet: string): Session | undefined {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEPT) ?? "null") as Session | null;
    const isOurs = found?.walletAddress.toLowerCase() === wallet.toLowerCase();
    return isOurs && Date.parse(found.expiresAt) > Date.now() ? found : undefined;
  } catch {
    return undefined;
  }
}
