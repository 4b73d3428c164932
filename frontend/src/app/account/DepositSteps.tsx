"use client";

import type { ReactNode } from "react";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Notice } from "@/components/ui/Notice";
import { TransactionSteps } from "@/components/ui/TransactionSteps";
import { far } from "@/lib/format";
import { CreditState } from "./CreditState";
import { useCredit } from "./useCredit";
import type { Deposit, Permission } from "./useDeposit";

type Standing = "to do" | "under way" | "done" | "failed";

/** Each step of a deposit, how far it is, and what to do about one that failed. */
export function DepositSteps({ deposit, units }: { deposit: Deposit; units: bigint }) {
  const { permission, approval, payment, consent, isCovered, consentProblem, wantsConsent, isBusy } = deposit;
  const transaction = "hash" in payment.state ? payment.state.hash : undefined;
  const isIn = payment.state.step === "done" || payment.state.step === "failed";
  const credit = useCredit(isIn && transaction !== undefined ? { transaction } : undefined);
  const credited: Standing = credit.data?.status === "credited" ? "done" : credit.error !== null && !credit.isFetching ? "failed" : "under way";
  const consented: Standing = isCovered === true ? "done" : consentProblem !== undefined ? "failed" : standingOf(consent.state.step);
  return (
    <ol aria-label={`The deposit of ${far(units)}`} className="flex max-w-xl flex-col gap-4 border-t border-line pt-4">
      <Step name={`Let the escrow take ${far(units)}`} standing={ofPermission(permission)}>
        {permission.step === "approving" || (permission.step === "done" && permission.by === "transaction") || approval.state.step === "failed" ? (
          <TransactionSteps state={approval.state} done="Approved" />
        ) : (
          <PermissionState permission={permission} />
        )}
      </Step>
      <Step name="Pay it in" standing={standingOf(payment.state.step)}>
        <TransactionSteps state={payment.state} done="It is in the escrow" />
        {payment.state.step === "failed" && transaction !== undefined && (
          <p className="text-sm text-soft">It was sent: see below whether it counts before you pay again.</p>
        )}
      </Step>
      <Step name="The marketplace credits it" standing={isIn && transaction !== undefined ? credited : "to do"}>
        {isIn && transaction !== undefined && <CreditState credit={credit} transaction={transaction} />}
      </Step>
      {wantsConsent && (
        <Step name="Requests may be charged to it" standing={consented}>
          {isCovered === true && <p className="text-sm text-soft">You have allowed as much before.</p>}
          <TransactionSteps state={consent.state} done="Allowed" />
          {consentProblem !== undefined && <Notice kind="bad" title="That did not work">{consentProblem}</Notice>}
          {consented === "failed" && (
            <div>
              <Button kind="quiet" onClick={() => void deposit.allowAgain()} disabled={isBusy}>Try again</Button>
            </div>
          )}
        </Step>
      )}
    </ol>
  );
}

const LOOKS = { "to do": "plain", "under way": "warn", done: "good", failed: "bad" } as const;

function Step({ name, standing, children }: { name: string; standing: Standing; children?: ReactNode }) {
  return (
    <li className="flex flex-col gap-2">
      <div className="flex items-center justify-between gap-3">
        <span className={`text-sm ${standing === "to do" ? "text-soft" : "font-medium"}`}>{name}</span>
        <Badge kind={LOOKS[standing]}>{standing}</Badge>
      </div>
      {children}
    </li>
  );
}

function standingOf(step: Deposit["payment"]["state"]["step"]): Standing {
  if (step === "idle") return "to do";
  return step === "done" || step === "failed" ? step : "under way";
}

function ofPermission({ step }: Permission): Standing {
  if (step === "idle") return "to do";
  return step === "done" || step === "failed" ? step : "under way";
}

function PermissionState({ permission }: { permission: Permission }) {
  switch (permission.step) {
    case "switching":
      return <Notice kind="info" title="Change the chain in your wallet">It asks whether it may.</Notice>;
    case "looking":
      return <Notice kind="info" title="Looking at what is allowed already" />;
    case "signing":
      return <Notice kind="info" title="Sign it in your wallet">A signature that counts for this amount, for an hour; it costs nothing.</Notice>;
    case "done":
      return <p className="text-sm text-soft">{permission.by === "before" ? "You have allowed as much before." : "Signed."}</p>;
    case "failed":
      return <Notice kind="bad" title="That did not work">{permission.reason}</Notice>;
    default:
      return null;
  }
}
