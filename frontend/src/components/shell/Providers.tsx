"use client";

import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { FarLabsError } from "farlabs";
import { type ReactNode, useMemo, useState } from "react";
import { WagmiProvider } from "wagmi";
import { payments } from "@/lib/gateway";
import { SessionProvider } from "@/lib/session";
import { isKnown, walletConfig } from "@/lib/wallet";

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
  const otherChain = data === undefined || isKnown(data.chain_id) ? undefined : data.chain_id;
  const config = useMemo(() => walletConfig(otherChain), [otherChain]);
  return (
    <WagmiProvider config={config} key={otherChain}>
      <SessionProvider>{children}</SessionProvider>
    </WagmiProvider>
  );
}
