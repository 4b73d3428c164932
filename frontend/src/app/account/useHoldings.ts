"use client";

import { useQuery, type UseQueryResult } from "@tanstack/react-query";
import { readContract } from "viem/actions";
import { useConfig, useConnection } from "wagmi";
import { getWalletClient } from "wagmi/actions";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { tokenAbi } from "@/lib/abi/tokenAbi";
import { toUnits } from "./amount";

/** Where money of users lies on chain. */
export interface Escrow {
  chainId: number;
  token: `0x${string}`;
  escrow: `0x${string}`;
}

/** What the chain says, in units. `allowed`: how much of the deposit may be charged without asking. */
export interface Holdings {
  inWallet: bigint;
  deposit: bigint;
  allowed: bigint;
}

const AGAIN_MS = 10_000;

/** Read through the connected wallet, as nobody else on the page may ask the chain; so only while it is on that chain. */
export function useHoldings({ chainId, token, escrow }: Escrow): UseQueryResult<Holdings> {
  const config = useConfig();
  const { address, chainId: at } = useConnection();
  return useQuery({
    queryKey: ["holdings", address, chainId, escrow],
    enabled: address !== undefined && at === chainId,
    refetchInterval: AGAIN_MS,
    queryFn: async () => {
      const wallet = await getWalletClient(config, { account: address, chainId });
      const args = [address as `0x${string}`] as const;
      const [inWallet, deposit, allowed] = await Promise.all([
        readContract(wallet, { address: token, abi: tokenAbi, functionName: "balanceOf", args }),
        readContract(wallet, { address: escrow, abi: escrowAbi, functionName: "depositOf", args }),
        readContract(wallet, { address: escrow, abi: escrowAbi, functionName: "spendingAllowance", args }),
      ]);
      return { inWallet: toUnits(inWallet), deposit: toUnits(deposit), allowed: toUnits(allowed) };
    },
  });
}
