import type { Balance as Found } from "farlabs";
import { Amount } from "@/components/ui/Amount";
import { Stat } from "@/components/ui/Card";
import { Notice } from "@/components/ui/Notice";

/** What there is to spend. */
export function Balance({ balance }: { balance: Found }) {
  return (
    <section aria-labelledby="balance">
      <h2 id="balance" className="sr-only">Balance</h2>
      <dl aria-live="polite" aria-atomic="false" className="grid grid-cols-2 gap-3 sm:gap-4 lg:grid-cols-4">
        <Stat name="Available" value={<Amount units={balance.available_units} />} hint="to be spent on requests" />
        <Stat name="Held" value={<Amount units={balance.held_units} />} hint="for requests under way" />
        <Stat name="Paid in" value={<Amount units={balance.deposited_units} />} hint="ever, less what was taken out" />
        <Stat name="Credit" value={<Amount units={balance.credit_units} />} hint="later requests cost less by this, for promises that were missed" />
      </dl>
      {balance.available_units < 0 && (
        <div className="mt-4">
          <Notice kind="warn" title="Your balance is below zero">
            More was taken out on chain than was left. No request is served until there is something to spend again.
          </Notice>
        </div>
      )}
    </section>
  );
}
