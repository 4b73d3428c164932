"use client";

import { useQueryClient } from "@tanstack/react-query";
import type { PayoutAddress } from "farlabs";
import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Field } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { when } from "@/lib/format";
import { useSession } from "@/lib/session";

/** Where a marketplace without an escrow sends what was earned. */
export function PaidAt({ transfer }: { transfer: PayoutAddress }) {
  const { chain, address, next_address: next, next_from: from, held_reason: held } = transfer;
  const isOwnWallet = chain === null || chain.startsWith("eip155:");
  return (
    <section aria-labelledby="paid-at" className="mt-5 flex flex-col gap-3 text-sm">
      <h3 id="paid-at" className="font-medium">Where you are paid</h3>
      <p className="max-w-prose text-soft">This marketplace has no escrow: it sends you what you have earned, and there is nothing to withdraw.</p>
      {address === null ? (
        <Notice kind="warn" title="There is no address yet">Your money stays earned until you name one.</Notice>
      ) : (
        <p><span className="font-mono break-all">{address}</span>{isOwnWallet && <span className="text-soft"> (your own wallet, on this chain always)</span>}</p>
      )}
      {next !== null && (
        <p className="text-soft">
          From {when(from)} on: <span className="font-mono break-all text-ink">{next}</span>. Name the old one again to take it back.
        </p>
      )}
      {held !== null && <Notice kind="bad" title="What is due could not be sent">{held}</Notice>}
      {!isOwnWallet && <Change />}
    </section>
  );
}

function Change() {
  const { client, isHanded } = useSession();
  const queries = useQueryClient();
  const [typed, setTyped] = useState("");
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  async function change() {
    setBusy(true);
    setProblem(undefined);
    try {
      await client.setPayoutAddress(typed.trim());
      setTyped("");
      await queries.invalidateQueries({ queryKey: ["provider"] });
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  }
  return (
    <form
      className="flex max-w-xl flex-col items-start gap-3"
      onSubmit={(event) => {
        event.preventDefault();
        void change();
      }}
    >
      <div className="w-full">
        <Field
          label="Another address"
          hint="It counts after a while, in which whoever did not mean it can take it back."
          problem={problem}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          autoComplete="off"
          spellCheck={false}
          className="font-mono"
        />
      </div>
      <Button type="submit" kind="quiet" disabled={isBusy || isHanded || typed.trim() === ""}>Be paid there</Button>
    </form>
  );
}
