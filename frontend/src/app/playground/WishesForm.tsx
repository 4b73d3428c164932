"use client";

import { useQuery } from "@tanstack/react-query";
import type { Model } from "farlabs";
import { Field, Select, Slider, TextArea } from "@/components/ui/Field";
import { Button } from "@/components/ui/Button";
import { useSession } from "@/lib/session";
import { DEFAULTS, type Problems, type Wishes } from "./wishes";

interface WishesFormProps {
  wishes: Wishes;
  problems: Problems;
  model: Model | undefined;
  onChange: (changes: Partial<Wishes>) => void;
}

/** How answers are wanted. It holds for the next one. */
export function WishesForm({ wishes, problems, model, onChange }: WishesFormProps) {
  return (
    <div className="flex flex-col gap-4">
      <TextArea
        label="System prompt"
        hint="Comes before the conversation: who the model is, how it is to answer."
        rows={4}
        value={wishes.system}
        onChange={(event) => onChange({ system: event.target.value })}
      />
      <Slider
        label="Temperature"
        hint="0 always takes the likeliest token; more is more varied."
        min={0}
        max={2}
        step={0.1}
        value={wishes.temperature}
        onChange={(temperature) => onChange({ temperature })}
      />
      <Slider
        label="Top p"
        hint="Only the likeliest tokens that together have this probability."
        min={0.05}
        max={1}
        step={0.05}
        value={wishes.topP}
        onChange={(topP) => onChange({ topP })}
      />
      <Field
        label="Tokens at most"
        hint="Of the answer. Empty: as many as the gateway gives."
        inputMode="numeric"
        problem={problems.maxTokens}
        value={wishes.maxTokens}
        onChange={(event) => onChange({ maxTokens: event.target.value })}
      />
      <Select
        label="Form of the answer"
        value={wishes.format}
        onChange={(event) => onChange({ format: event.target.value as Wishes["format"] })}
      >
        <option value="text">Any text</option>
        <option value="json_object">A JSON object</option>
        <option value="json_schema">JSON by a schema</option>
      </Select>
      {wishes.format === "json_schema" && (
        <TextArea
          label="JSON schema"
          rows={6}
          spellCheck={false}
          className="font-mono"
          problem={problems.schema}
          value={wishes.schema}
          onChange={(event) => onChange({ schema: event.target.value })}
        />
      )}
      <Tier wishes={wishes} model={model} onChange={onChange} />
      <details>
        <summary className="cursor-pointer py-2 text-sm font-medium">More</summary>
        <More wishes={wishes} problems={problems} onChange={onChange} />
      </details>
      <Button kind="quiet" onClick={() => onChange({ ...DEFAULTS, model: wishes.model, system: wishes.system })}>
        As at the beginning
      </Button>
    </div>
  );
}

function More({ wishes, problems, onChange }: Pick<WishesFormProps, "wishes" | "problems" | "onChange">) {
  return (
    <div className="flex flex-col gap-4 pt-2">
      <Field
        label="Seed"
        hint="With the same one, the same question has the same answer, as far as the nodes compute alike."
        inputMode="numeric"
        problem={problems.seed}
        value={wishes.seed}
        onChange={(event) => onChange({ seed: event.target.value })}
      />
      <TextArea
        label="Stop at"
        hint="The answer ends before the first of these; one on each line, \n for a line break."
        rows={2}
        spellCheck={false}
        problem={problems.stop}
        value={wishes.stop}
        onChange={(event) => onChange({ stop: event.target.value })}
      />
      <Field
        label="Top k"
        hint="Only so many of the likeliest tokens. Empty or 0: all."
        inputMode="numeric"
        problem={problems.topK}
        value={wishes.topK}
        onChange={(event) => onChange({ topK: event.target.value })}
      />
      <Slider
        label="Min p"
        hint="Only tokens that are at least this likely, beside the likeliest."
        min={0}
        max={1}
        step={0.01}
        value={wishes.minP}
        onChange={(minP) => onChange({ minP })}
      />
      <Slider
        label="Presence penalty"
        hint="Against tokens that have come before."
        min={-2}
        max={2}
        step={0.1}
        value={wishes.presencePenalty}
        onChange={(presencePenalty) => onChange({ presencePenalty })}
      />
      <Slider
        label="Frequency penalty"
        hint="The same, for each time that they came."
        min={-2}
        max={2}
        step={0.1}
        value={wishes.frequencyPenalty}
        onChange={(frequencyPenalty) => onChange({ frequencyPenalty })}
      />
      <Slider
        label="Repetition penalty"
        hint="The same by division, the question included; 1 does nothing."
        min={0.1}
        max={2}
        step={0.05}
        value={wishes.repetitionPenalty}
        onChange={(repetitionPenalty) => onChange({ repetitionPenalty })}
      />
      <Select
        label="Payment"
        hint="All of them take from what you have deposited."
        value={wishes.payment}
        onChange={(event) => onChange({ payment: event.target.value as Wishes["payment"] })}
      >
        <option value="auto">From the balance; locked first where that is safer</option>
        <option value="balance">From the balance, settled with others</option>
        <option value="escrow">Locked on chain before the answer begins</option>
      </Select>
      <label className="flex items-start gap-2 text-sm">
        <input
          type="checkbox"
          className="mt-0.5 size-4 accent-brand"
          checked={wishes.quotes}
          onChange={(event) => onChange({ quotes: event.target.checked })}
        />
        <span>
          Count tokens and price while I write
          <span className="block text-xs text-soft">For this, what you have written so far goes to the gateway when you pause.</span>
        </span>
      </label>
    </div>
  );
}

/** How it is served. Which tiers one may use, the gateway says. */
function Tier({ wishes, model, onChange }: Pick<WishesFormProps, "wishes" | "model" | "onChange">) {
  const { client, wallet, isSignedIn } = useSession();
  const { data } = useQuery({ queryKey: ["account-tier", wallet], queryFn: () => client.accountTier(), enabled: isSignedIn });
  const names = Object.keys(model?.prices ?? {});
  if (names.length < 2) return null;
  const allowed: readonly string[] | undefined = data?.allowed;
  return (
    <Select
      label="Tier"
      hint={data === undefined ? "Which of them you may use depends on your account." : `Your account is in the tier ${data.tier}.`}
      value={wishes.tier}
      onChange={(event) => onChange({ tier: event.target.value })}
    >
      <option value="">That of your account</option>
      {names.map((name) => {
        const isOpen = allowed === undefined || allowed.includes(name);
        return <option key={name} value={name} disabled={!isOpen}>{isOpen ? name : `${name} (not yours)`}</option>;
      })}
    </Select>
  );
}
