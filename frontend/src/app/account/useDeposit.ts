"use client";

import { useCallback, useState } from "react";
import { type Hex, parseSignature } from "viem";
import { getCode, readContract, signTypedData } from "viem/actions";
import { useConfig, useSwitchChain } from "wagmi";
import { getConnection, getWalletClient } from "wagmi/actions";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { tokenAbi } from "@/lib/abi/tokenAbi";
import { refusal } from "@/lib/refusal";
import { type Transaction, useTransaction } from "@/lib/useTransaction";
import { chainOf } from "@/lib/wallet";
import { toWei } from "./amount";
import { canPermit, permitData } from "./permit";
import type { Escrow } from "./useHoldings";
import { useRefresh } from "./useRefresh";

/** The first step, in which the escrow is allowed to take the tokens. */
export type Permission =
  | { step: "idle" }
  | { step: "switching" }
  | { step: "looking" }
  | { step: "signing" }
  | { step: "approving" }
  | { step: "done"; by: "signature" | "transaction" | "before" }
  | { step: "failed"; reason: string };

export interface Deposit {
  /** What it is about, once it was begun. */
  units: bigint | undefined;
  wantsConsent: boolean;
  permission: Permission;
  approval: Transaction;
  payment: Transaction;
  /** That requests may be charged to the deposit. */
  consent: Transaction;
  /** Whether that was so before; undefined while nobody has looked. */
  isCovered: boolean | undefined;
  /** Why it could not be looked at. */
  consentProblem: string | undefined;
  isBusy: boolean;
  /** Whether it was paid in. */
  begin: (units: bigint, wantsConsent: boolean) => Promise<boolean>;
  /** The last step again. */
  allowAgain: () => Promise<void>;
}

type Wallet = Awaited<ReturnType<typeof getWalletClient>>;

interface Signed {
  deadline: bigint;
  v: number;
  r: Hex;
  s: Hex;
}

const PERMIT_SECONDS = 3_600;

/**
 * A deposit into the escrow: allow it to take the tokens (by a signature where that can be, else by a transaction), pay,
 * and consent to be charged. Whatever fails can be begun again, and what has happened is not done twice.
 */
export function useDeposit({ chainId, token, escrow }: Escrow): Deposit {
  const config = useConfig();
  const { mutateAsync: switchChain } = useSwitchChain();
  const refresh = useRefresh();
  const approval = useTransaction();
  const payment = useTransaction();
  const consent = useTransaction();
  const [begun, setBegun] = useState<{ units: bigint; wantsConsent: boolean }>();
  const [permission, setPermission] = useState<Permission>({ step: "idle" });
  const [isCovered, setCovered] = useState<boolean>();
  const [consentProblem, setConsentProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);

  const walletHere = useCallback(() => getWalletClient(config, { chainId }), [config, chainId]);

  /** A signature that stands for an approval; undefined: this token or this wallet has no such thing. */
  const permit = useCallback(
    async (wallet: Wallet, owner: `0x${string}`, value: bigint): Promise<Signed | undefined> => {
      if (!canPermit(await getCode(wallet, { address: owner }))) return undefined;
      const deadline = BigInt(Math.floor(Date.now() / 1000) + PERMIT_SECONDS);
      const asked = await Promise.all([
        readContract(wallet, { address: token, abi: tokenAbi, functionName: "eip712Domain" }),
        readContract(wallet, { address: token, abi: tokenAbi, functionName: "nonces", args: [owner] }),
      ]).catch(() => undefined); // a token without permits
      if (asked === undefined) return undefined;
      const [[, name, version, onChain, verifyingContract], nonce] = asked;
      const data = permitData({ name, version, chainId: onChain, verifyingContract }, { token, chainId }, { owner, spender: escrow, value, nonce, deadline });
      if (data === undefined) return undefined;
      setPermission({ step: "signing" });
      const { r, s, yParity } = parseSignature(await signTypedData(wallet, { account: owner, ...data }));
      return { deadline, v: 27 + yParity, r, s };
    },
    [chainId, token, escrow],
  );

  /** Consents to the whole deposit, which is `least` or more whatever a node says that is late. */
  const allow = useCallback(
    async (least: bigint) => {
      setBusy(true);
      setConsentProblem(undefined);
      try {
        const wallet = await walletHere();
        const args = [wallet.account.address] as const;
        const [found, allowed] = await Promise.all([
          readContract(wallet, { address: escrow, abi: escrowAbi, functionName: "depositOf", args }),
          readContract(wallet, { address: escrow, abi: escrowAbi, functionName: "spendingAllowance", args }),
        ]);
        const deposit = found > least ? found : least;
        const covers = allowed >= deposit;
        setCovered(covers);
        if (!covers) await consent.send({ address: escrow, abi: escrowAbi, functionName: "setSpendingAllowance", args: [deposit] });
      } catch (error) {
        setConsentProblem(refusal(error, symbolOf(chainId)));
      } finally {
        setBusy(false);
        await refresh();
      }
    },
    [walletHere, escrow, consent.send, chainId, refresh],
  );

  const begin = useCallback(
    async (units: bigint, wantsConsent: boolean): Promise<boolean> => {
      const value = toWei(units);
      setBegun({ units, wantsConsent });
      setCovered(undefined);
      setConsentProblem(undefined);
      for (const each of [approval, payment, consent]) each.reset();
      setBusy(true);
      try {
        const { address, chainId: at } = getConnection(config);
        if (address === undefined) throw new Error("Connect a wallet first.");
        if (at !== chainId) {
          setPermission({ step: "switching" });
          await switchChain({ chainId });
        }
        setPermission({ step: "looking" });
        const wallet = await walletHere();
        const allowance = await readContract(wallet, { address: token, abi: tokenAbi, functionName: "allowance", args: [address, escrow] });
        let signed: Signed | undefined;
        if (allowance >= value) {
          setPermission({ step: "done", by: "before" });
        } else {
          signed = await permit(wallet, address, value);
          if (signed === undefined) {
            setPermission({ step: "approving" });
            const hash = await approval.send({ address: token, abi: tokenAbi, functionName: "approve", args: [escrow, value] });
            if (hash === undefined) return false;
          }
          setPermission({ step: "done", by: signed === undefined ? "transaction" : "signature" });
        }
        const paid =
          signed === undefined
            ? await payment.send({ address: escrow, abi: escrowAbi, functionName: "deposit", args: [value] })
            : await payment.send({
                address: escrow,
                abi: escrowAbi,
                functionName: "depositWithPermit",
                args: [address, value, signed.deadline, signed.v, signed.r, signed.s],
              });
        await refresh();
        if (paid !== undefined && wantsConsent) await allow(value);
        return paid !== undefined;
      } catch (error) {
        setPermission({ step: "failed", reason: refusal(error, symbolOf(chainId)) });
        return false;
      } finally {
        setBusy(false);
      }
    },
    [approval, payment, consent, config, chainId, switchChain, walletHere, token, escrow, permit, refresh, allow],
  );

  const allowAgain = useCallback(() => allow(toWei(begun?.units ?? 0n)), [allow, begun]);

  return {
    units: begun?.units,
    wantsConsent: begun?.wantsConsent ?? false,
    permission,
    approval,
    payment,
    consent,
    isCovered,
    consentProblem,
    isBusy,
    begin,
    allowAgain,
  };
}

/** The coin in which gas is paid. */
function symbolOf(chainId: number): string {
  return chainOf({ chain_id: chainId }).nativeCurrency.symbol;
}
