"use client";

import { useState } from "react";
import { useConnection } from "wagmi";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Field } from "@/components/ui/Field";
import { far } from "@/lib/format";
import { chainOf } from "@/lib/wallet";
import { readAmount } from "./amount";
import { DepositSteps } from "./DepositSteps";
import { useDeposit } from "./useDeposit";
import type { Escrow, Holdings } from "./useHoldings";

/** Pays FAR from the wallet into the escrow. */
export function DepositForm({ place, holdings }: { place: Escrow; holdings: Holdings | undefined }) {
  const { chainId: at } = useConnection();
  const deposit = useDeposit(place);
  const [typed, setTyped] = useState("");
  const [wantsConsent, setConsent] = useState(true);
  const { units, problem } = readAmount(typed, holdings && { units: holdings.inWallet, what: "Your wallet has" });
  async function begin() {
    if (units !== undefined && (await deposit.begin(units, wantsConsent))) setTyped("");
  }
  return (
    <>
      <p className="max-w-prose text-sm text-soft">
        What you pay in lies in a contract, the escrow, and stays yours: requests take from it what they cost, and the rest can
        be withdrawn at any time.
      </p>
      <form
        className="flex max-w-xl flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          void begin();
        }}
      >
        <Field
          label="Amount in FAR"
          hint={holdings === undefined ? undefined : <>In your wallet: <Amount units={holdings.inWallet} /></>}
          problem={problem}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          disabled={deposit.isBusy}
          inputMode="decimal"
          autoComplete="off"
          placeholder="10"
        />
        <label className="flex items-start gap-2 text-sm">
          <input
            type="checkbox"
            className="mt-0.5 size-4 accent-brand"
            checked={wantsConsent}
            onChange={(event) => setConsent(event.target.checked)}
            disabled={deposit.isBusy}
          />
          <span>
            Requests may be charged to it
            <span className="block text-xs text-soft">
              One more transaction, which can be taken back under Spending limit. Without it nothing can be asked from the
              balance or with an API key.
            </span>
          </span>
        </label>
        {at !== undefined && at !== place.chainId && (
          <p className="text-sm text-soft">Your wallet is on another chain: it will be asked to change to {chainOf({ chain_id: place.chainId }).name}.</p>
        )}
        <div>
          <Button type="submit" disabled={deposit.isBusy || units === undefined}>{units === undefined ? "Deposit" : `Deposit ${far(units)}`}</Button>
        </div>
      </form>
      {deposit.units !== undefined && <DepositSteps deposit={deposit} units={deposit.units} />}
    </>
  );
}
