"use client";

import { useCallback, useState } from "react";
import type { Abi, ContractFunctionArgs, ContractFunctionName, Hash } from "viem";
import { estimateContractGas, getGasPrice, simulateContract, waitForTransactionReceipt, writeContract } from "viem/actions";
import { useConfig, useSwitchChain } from "wagmi";
import { getConnection, getWalletClient } from "wagmi/actions";
import type { Payments } from "./gateway";
import { usePayments } from "./queries";
import { refusal } from "./refusal";
import { chainOf } from "./wallet";

/** How far a transaction is. `fee`: what its gas costs at most at this moment, in wei, where the wallet could tell. */
export type TransactionState =
  | { step: "idle" }
  | { step: "switching" }
  | { step: "checking" }
  | { step: "signing"; fee: bigint | undefined }
  | { step: "pending"; hash: Hash }
  | { step: "done"; hash: Hash }
  | { step: "failed"; reason: string; hash: Hash | undefined };

export interface ContractCall<A extends Abi = Abi, Name extends ContractFunctionName<A, "nonpayable"> = ContractFunctionName<A, "nonpayable">> {
  address: `0x${string}`;
  abi: A;
  functionName: Name;
  args: ContractFunctionArgs<A, "nonpayable", Name>;
}

export interface Transaction {
  state: TransactionState;
  isBusy: boolean;
  /** From the check to the receipt. The hash once it is in a block; undefined where it came to nothing, as `state` says. */
  send: <const A extends Abi, Name extends ContractFunctionName<A, "nonpayable">>(call: ContractCall<A, Name>) => Promise<Hash | undefined>;
  reset: () => void;
}

const LOOK_AGAIN_MS = 1_000;

/**
 * A call of a contract by the connected wallet, on the chain of the marketplace: tried before the wallet is asked, so
 * that nobody pays gas to be refused. The wallet is asked to change the chain where it is on another.
 */
export function useTransaction(): Transaction {
  const config = useConfig();
  const { mutateAsync: switchChain } = useSwitchChain();
  const [state, setState] = useState<TransactionState>({ step: "idle" });
  const { data: payments } = usePayments();

  const send = useCallback(
    async (call: ContractCall): Promise<Hash | undefined> => {
      let hash: Hash | undefined;
      const { address, chainId: at } = getConnection(config); // of now: the one before may have changed the chain
      try {
        if (address === undefined) throw new Error("Connect a wallet first.");
        if (payments === undefined) throw new Error("The gateway has not told its chain yet: try again.");
        const chain = chainOf(payments);
        if (at !== chain.id) {
          setState({ step: "switching" });
          await switchChain({ chainId: chain.id });
        }
        setState({ step: "checking" });
        const wallet = await getWalletClient(config, { account: address, chainId: chain.id });
        const asked = { ...call, account: address } as const;
        await simulateContract(wallet, asked);
        setState({ step: "signing", fee: await feeOf(wallet, asked) });
        hash = await writeContract(wallet, { ...asked, chain });
        setState({ step: "pending", hash });
        const { status } = await waitForTransactionReceipt(wallet, { hash, pollingInterval: LOOK_AGAIN_MS });
        if (status !== "success") throw new Error("The chain took the transaction and refused what it asks for.");
        setState({ step: "done", hash });
        return hash;
      } catch (error) {
        setState({ step: "failed", reason: refusal(error, coinOf(payments)), hash });
        return undefined;
      }
    },
    [config, payments, switchChain],
  );

  const reset = useCallback(() => setState({ step: "idle" }), []);
  const isBusy = ["switching", "checking", "signing", "pending"].includes(state.step);
  return { state, isBusy, send: send as Transaction["send"], reset };
}

/** The coin in which gas is paid. */
function coinOf(payments: Payments | undefined): string {
  return payments === undefined ? "coins" : chainOf(payments).nativeCurrency.symbol;
}

type Wallet = Awaited<ReturnType<typeof getWalletClient>>;

/** Told before it is paid; a wallet that cannot tell shows it by itself. */
async function feeOf(wallet: Wallet, call: ContractCall & { account: `0x${string}` }): Promise<bigint | undefined> {
  try {
    const [units, price] = await Promise.all([estimateContractGas(wallet, call), getGasPrice(wallet)]);
    return units * price;
  } catch {
    return undefined;
  }
}
