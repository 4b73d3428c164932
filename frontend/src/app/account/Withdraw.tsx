"use client";

import type { Balance } from "farlabs";
import { formatFar } from "farlabs";
import { useState } from "react";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Field } from "@/components/ui/Field";
import { TransactionSteps } from "@/components/ui/TransactionSteps";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { far } from "@/lib/format";
import { useTransaction } from "@/lib/useTransaction";
import { readAmount, toWei, withdrawable } from "./amount";
import type { Escrow, Holdings } from "./useHoldings";
import { useRefresh } from "./useRefresh";

/** Takes what is not spent out of the escrow, back into the wallet. */
export function Withdraw({ balance, place, holdings }: { balance: Balance; place: Escrow; holdings: Holdings | undefined }) {
  const refresh = useRefresh();
  const { state, isBusy, send } = useTransaction();
  const [typed, setTyped] = useState("");
  const most = withdrawable(balance.available_units, holdings?.deposit);
  const { units, problem } = readAmount(typed, { units: most, what: "What is not spent or held is" });
  async function withdraw() {
    if (units === undefined) return;
    const hash = await send({ address: place.escrow, abi: escrowAbi, functionName: "withdrawDeposit", args: [toWei(units)] });
    if (hash === undefined) return;
    setTyped("");
    await refresh();
  }
  return (
    <>
      <p className="max-w-prose text-sm text-soft">
        What is not spent goes back to your own wallet, and nowhere else. What requests under way hold comes free when they end.
      </p>
      <form
        className="flex max-w-xl flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          void withdraw();
        }}
      >
        <Field
          label="FAR to take out"
          hint={<>Can be taken out: <Amount units={most} /></>}
          problem={problem}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          disabled={isBusy}
          inputMode="decimal"
          autoComplete="off"
        />
        <div className="flex flex-wrap gap-2">
          <Button type="submit" disabled={isBusy || units === undefined}>{units === undefined ? "Withdraw" : `Withdraw ${far(units)}`}</Button>
          <Button kind="quiet" onClick={() => setTyped(formatFar(most))} disabled={isBusy || most === 0n}>All of it</Button>
        </div>
      </form>
      <TransactionSteps state={state} done="It is in your wallet" />
    </>
  );
}
