"use client";

import { type Balance, FarLabsError } from "farlabs";
import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Field } from "@/components/ui/Field";
import { CreditState } from "./CreditState";
import { type Payment, useCredit } from "./useCredit";

/** Where there is no escrow: who has sent something says so, and it is credited. */
export function Transfer({ balance, address }: { balance: Balance; address: string }) {
  const [typed, setTyped] = useState("");
  const [signature, setSignature] = useState("");
  const [payment, setPayment] = useState<Payment>();
  const credit = useCredit(payment);
  const isOthers = credit.error instanceof FarLabsError && credit.error.code === "deposit_not_yours";
  const named = typed.trim();
  return (
    <>
      <p className="max-w-prose text-sm text-soft">
        Send {balance.token_address === null ? "the coin of the chain" : <>the token <span className="font-mono break-all">{balance.token_address}</span></>}
        {" "}on {balance.chain ?? "the chain of the marketplace"} to this address, then name the transaction. It counts once, for
        whoever has paid it.
      </p>
      <CodeBlock code={address} what="the address to pay to" />
      <form
        className="flex max-w-xl flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          setPayment({ transaction: named, payerSignature: signature.trim() === "" ? undefined : signature.trim() });
        }}
      >
        <Field
          label="Transaction"
          hint="Its hash, as your wallet shows it once it was sent."
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
          autoComplete="off"
          spellCheck={false}
          className="font-mono"
        />
        {isOthers && (
          <Field
            label="Signature of the wallet that has paid"
            hint="Over the text that the answer below names: that wallet alone can say for whom it has paid."
            value={signature}
            onChange={(event) => setSignature(event.target.value)}
            autoComplete="off"
            spellCheck={false}
            className="font-mono"
          />
        )}
        <div>
          <Button type="submit" disabled={named === "" || credit.isFetching}>Have it credited</Button>
        </div>
      </form>
      {payment !== undefined && <CreditState credit={credit} transaction={payment.transaction} isNamed />}
    </>
  );
}
