"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { Rewards } from "farlabs";
import { useState } from "react";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { Field } from "@/components/ui/Field";
import { NeedsSender } from "@/components/ui/NeedsSender";
import { TransactionSteps } from "@/components/ui/TransactionSteps";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { readAddress } from "@/lib/address";
import { far, when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { useTransaction } from "@/lib/useTransaction";
import { PaidAt } from "./PaidAt";

/** Where all the money is, and how to take it. */
export function Money({ rewards }: { rewards: Rewards }) {
  const { escrow_address: escrow, transfer } = rewards;
  return (
    <Card title="Your money">
      <dl className="flex max-w-xl flex-col text-sm">
        <Sum name="Earned, ever" units={rewards.earned_units} isTotal />
        <Sum name="waits for a batch" units={rewards.waiting_units} />
        <Sum name="on its way" units={rewards.in_flight_units} />
        <Sum name="paid" units={rewards.paid_units} />
        {escrow !== null && (
          <>
            <Sum name="of that to be withdrawn" units={rewards.credit_units} isPart />
            <Sum name="of that to be claimed" units={rewards.unclaimed_units} isPart />
            <Sum name="of that withdrawn" units={rewards.withdrawn_units} isPart />
          </>
        )}
      </dl>
      {escrow !== null && (
        <div className="mt-5 flex flex-col gap-5">
          {rewards.unclaimed_units !== null && rewards.unclaimed_units > 0 && <ClaimPayout escrow={escrow as `0x${string}`} />}
          <Withdraw escrow={escrow as `0x${string}`} credit={rewards.credit_units} />
        </div>
      )}
      {transfer !== null && transfer !== undefined && <PaidAt transfer={transfer} />}
    </Card>
  );
}

function Sum({ name, units, isTotal = false, isPart = false }: { name: string; units: number | null; isTotal?: boolean; isPart?: boolean }) {
  return (
    <div className={`flex justify-between gap-4 py-1.5 ${isTotal ? "border-b border-line font-medium" : ""} ${isPart ? "pl-8 text-soft" : isTotal ? "" : "pl-4"}`}>
      <dt>{name}</dt>
      <dd className="whitespace-nowrap"><Amount units={units} /></dd>
    </div>
  );
}

function Withdraw({ escrow, credit }: { escrow: `0x${string}`; credit: number | null }) {
  const { wallet } = useSession();
  const queries = useQueryClient();
  const { state, isBusy, send } = useTransaction();
  const [typed, setTyped] = useState<string>();
  const { address, problem } = readAddress(typed ?? wallet ?? "");
  async function withdraw() {
    if (address === undefined) return;
    const hash = await send({ address: escrow, abi: escrowAbi, functionName: "withdraw", args: [address] });
    if (hash !== undefined) await queries.invalidateQueries({ queryKey: ["provider"] });
  }
  const isNothing = credit === null || credit === 0;
  return (
    <section aria-labelledby="withdraw" className="flex flex-col gap-3">
      <h3 id="withdraw" className="font-medium">Withdraw</h3>
      {isNothing && state.step === "idle" ? (
        <p className="text-sm text-soft">
          {credit === null
            ? "The chain does not answer at the moment, so nobody knows what can be withdrawn."
            : "There is nothing to withdraw now. What you earn is paid in batches; what is paid lies in the escrow until you take it."}
        </p>
      ) : (
        <NeedsSender to="take it">
          <div className="max-w-xl">
            <Field
              label="Send it to"
              hint="Your own wallet, or any other address of the chain. It cannot be taken back."
              problem={problem}
              value={typed ?? wallet ?? ""}
              onChange={(event) => setTyped(event.target.value)}
              disabled={isBusy}
              autoComplete="off"
              spellCheck={false}
              className="font-mono"
            />
          </div>
          <div className="flex flex-wrap items-center gap-3">
            <Button onClick={() => void withdraw()} disabled={isBusy || isNothing || address === undefined}>
              {isNothing ? "Withdraw" : `Withdraw ${far(credit)}`}
            </Button>
            <span className="text-sm text-soft">All of your credit at once. You pay the gas, so wait until it is worth it.</span>
          </div>
          <TransactionSteps state={state} done={address === wallet ? "It is in your wallet" : "It was sent"} />
        </NeedsSender>
      )}
    </section>
  );
}

/** Payout roots promise all that they ever gave, so the newest that can be claimed takes everything. */
function ClaimPayout({ escrow }: { escrow: `0x${string}` }) {
  const { client, wallet } = useSession();
  const queries = useQueryClient();
  const { state, isBusy, send } = useTransaction();
  const { data } = useQuery({ queryKey: ["provider", wallet, "claims"], queryFn: ({ signal }) => client.claims({ signal }), refetchInterval: 30_000 });
  const claim = data?.claims.find(({ state: found }) => found === "claimable");
  const later = data?.claims.find(({ state: found }) => found === "delayed");
  async function take() {
    if (claim === undefined || data === undefined) return;
    const hash = await send({
      address: escrow,
      abi: escrowAbi,
      functionName: "claimPayout",
      args: [BigInt(claim.epoch), data.wallet_address as `0x${string}`, BigInt(claim.cumulative_wei), claim.proof as `0x${string}`[]],
    });
    if (hash !== undefined) await queries.invalidateQueries({ queryKey: ["provider"] });
  }
  return (
    <section aria-labelledby="claim-payout" className="flex flex-col gap-3">
      <h3 id="claim-payout" className="font-medium">Claim</h3>
      <p className="max-w-prose text-sm text-soft">
        A payout root on chain promises you this. Claiming it, with the proof that the marketplace gives, turns it into credit
        that you can withdraw.
      </p>
      {claim !== undefined && (
        <NeedsSender to="take it">
          <div>
            <Button onClick={() => void take()} disabled={isBusy}>Claim {far(claim.open_units)}</Button>
          </div>
        </NeedsSender>
      )}
      {later !== undefined && (
        <p className="text-sm text-soft">
          <Amount units={later.open_units} /> can be claimed from {when(later.claimable_at)} on.
        </p>
      )}
      <TransactionSteps state={state} done="Claimed: it can be withdrawn" />
    </section>
  );
}
