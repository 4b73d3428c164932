"use client";

import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { FarLabsError } from "farlabs";
import { type ReactNode, useMemo, useState } from "react";
import { WagmiProvider } from "wagmi";
import { payments, type Payments } from "@/lib/gateway";
import { SessionProvider } from "@/lib/session";
import { walletConfig } from "@/lib/wallet";

/** Until the gateway has said on which chain it is paid. */
const UNKNOWN: Payments = { provider: "none", escrow: false, chain_id: 1 };

export function Providers({ children }: { children: ReactNode }) {
  const [queries] = useState(
    () =>
      new QueryClient({
        defaultOptions: {
          queries: {
            retry: (failures, error) => failures < 2 && (!(error instanceof FarLabsError) || error.retry),
            staleTime: 2_000,
            // a gateway on this machine is there without a network, and where there is none asking says so
            networkMode: "always",
            refetchOnReconnect: true,
          },
          mutations: { networkMode: "always" },
        },
      }),
  );
  return (
    <QueryClientProvider client={queries}>
      <Wallets>{children}</Wallets>
    </QueryClientProvider>
  );
}

function Wallets({ children }: { children: ReactNode }) {
  const { data } = useQuery({ queryKey: ["payments"], queryFn: payments, staleTime: Infinity });
  const chainId = data?.chain_id ?? UNKNOWN.chain_id;
  const config = useMemo(() => walletConfig({ ...UNKNOWN, chain_id: chainId }), [chainId]);
  return (
    <WagmiProvider config={config} key={chainId}>
      <SessionProvider>{children}</SessionProvider>
    </WagmiProvider>
  );
}
