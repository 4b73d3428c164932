"use client";

import { useState } from "react";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Field } from "@/components/ui/Field";
import { TransactionSteps } from "@/components/ui/TransactionSteps";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { far } from "@/lib/format";
import { useTransaction } from "@/lib/useTransaction";
import { readAmount, toWei } from "./amount";
import type { Escrow, Holdings } from "./useHoldings";
import { useRefresh } from "./useRefresh";

/** How much of the deposit requests may be charged to, as the contract keeps it. */
export function SpendingLimit({ place, holdings }: { place: Escrow; holdings: Holdings | undefined }) {
  const refresh = useRefresh();
  const { state, isBusy, send } = useTransaction();
  const [typed, setTyped] = useState("");
  const { units, problem } = readAmount(typed);
  async function set(limit: bigint) {
    const hash = await send({ address: place.escrow, abi: escrowAbi, functionName: "setSpendingAllowance", args: [toWei(limit)] });
    if (hash === undefined) return;
    setTyped("");
    await refresh();
  }
  return (
    <>
      <p className="max-w-prose text-sm text-soft">
        The marketplace cannot charge more than this to your deposit, whatever it says: the contract keeps the limit. Each
        charge lowers it. Zero takes your consent back; requests that run now are then not settled from the balance.
      </p>
      <dl className="flex max-w-xl flex-col text-sm">
        <Row name="May still be charged" units={holdings?.allowed} />
        <Row name="Your deposit on chain" units={holdings?.deposit} />
      </dl>
      <form
        className="flex max-w-xl flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          if (units !== undefined) void set(units);
        }}
      >
        <Field
          label="New limit in FAR"
          problem={problem}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          disabled={isBusy}
          inputMode="decimal"
          autoComplete="off"
        />
        <div className="flex flex-wrap gap-2">
          <Button type="submit" disabled={isBusy || units === undefined}>{units === undefined ? "Allow" : `Allow ${far(units)}`}</Button>
          {holdings !== undefined && holdings.deposit > holdings.allowed && (
            <Button kind="quiet" onClick={() => void set(holdings.deposit)} disabled={isBusy}>Allow the whole deposit</Button>
          )}
          {holdings !== undefined && holdings.allowed > 0n && (
            <Button kind="danger" onClick={() => void set(0n)} disabled={isBusy}>Take the consent back</Button>
          )}
        </div>
      </form>
      <TransactionSteps state={state} done="The limit is set" />
    </>
  );
}

function Row({ name, units }: { name: string; units: bigint | undefined }) {
  return (
    <div className="flex justify-between gap-4 py-1.5">
      <dt>{name}</dt>
      <dd>{units === undefined ? <span className="text-soft">not known</span> : <Amount units={units} />}</dd>
    </div>
  );
}
