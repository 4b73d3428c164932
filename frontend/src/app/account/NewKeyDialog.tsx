"use client";

import { type FormEvent, useId, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Dialog } from "@/components/ui/Dialog";
import { Field, Select } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { useSession } from "@/lib/session";
import { type KeyForm, type KeyProblems, LIVES, NEW_KEY, requestOf, type Scope, SCOPES } from "./keys";
import { ShownOnce } from "./ShownOnce";

interface NewKeyDialogProps {
  isOpen: boolean;
  onClose: () => void;
  onMade: () => Promise<void>;
}

/** A form, and then the key, which is forgotten when the dialog is closed. */
export function NewKeyDialog({ isOpen, onClose, onMade }: NewKeyDialogProps) {
  const [made, setMade] = useState<string>();
  function close() {
    setMade(undefined);
    onClose();
  }
  return (
    <Dialog title={made === undefined ? "A new API key" : "Your new API key"} isOpen={isOpen} onClose={close} isSheet>
      {made === undefined ? (
        <Form
          onMade={async (key) => {
            setMade(key);
            await onMade();
          }}
        />
      ) : (
        <div className="flex flex-col gap-4">
          <ShownOnce secret={made} what="the key" />
          <div className="flex justify-end"><Button onClick={close}>I have it</Button></div>
        </div>
      )}
    </Dialog>
  );
}

function Form({ onMade }: { onMade: (key: string) => Promise<void> }) {
  const { client } = useSession();
  const [form, setForm] = useState<KeyForm>(NEW_KEY);
  const [problems, setProblems] = useState<KeyProblems>({});
  const [refusal, setRefusal] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const change = (changes: Partial<KeyForm>) => setForm((now) => ({ ...now, ...changes }));
  async function make(event: FormEvent) {
    event.preventDefault();
    const wanted = requestOf(form, Date.now());
    setProblems("problems" in wanted ? wanted.problems : {});
    setRefusal(undefined);
    if ("problems" in wanted) return;
    setBusy(true);
    try {
      await onMade((await client.createApiKey(wanted.request)).key);
    } catch (error) {
      setRefusal(explain(error));
    } finally {
      setBusy(false);
    }
  }
  return (
    <form className="flex flex-col gap-4" onSubmit={(event) => void make(event)}>
      <Field
        label="Name"
        hint="For you, to know it again."
        problem={problems.name}
        value={form.name}
        onChange={(event) => change({ name: event.target.value })}
        autoComplete="off"
      />
      <Scopes chosen={form.scopes} problem={problems.scopes} onChange={(scopes) => change({ scopes })} />
      <Select label="Expires" value={form.life} onChange={(event) => change({ life: event.target.value as KeyForm["life"] })}>
        {Object.entries(LIVES).toReversed().map(([value, name]) => <option key={value} value={value}>{name}</option>)}
      </Select>
      <Field
        label="FAR a day, at most"
        hint="Empty: as much as your balance. Days are those of UTC."
        problem={problems.farPerDay}
        value={form.farPerDay}
        onChange={(event) => change({ farPerDay: event.target.value })}
        inputMode="decimal"
        autoComplete="off"
      />
      <Field
        label="Requests a minute, at most"
        hint="Empty: as many as your tier."
        problem={problems.requestsPerMinute}
        value={form.requestsPerMinute}
        onChange={(event) => change({ requestsPerMinute: event.target.value })}
        inputMode="numeric"
        autoComplete="off"
      />
      {refusal !== undefined && <Notice kind="bad" title="No key was made">{refusal}</Notice>}
      <div className="flex justify-end"><Button type="submit" disabled={isBusy}>Create</Button></div>
    </form>
  );
}

interface ScopesProps {
  chosen: readonly Scope[];
  problem: string | undefined;
  onChange: (scopes: readonly Scope[]) => void;
}

function Scopes({ chosen, problem, onChange }: ScopesProps) {
  const id = useId();
  return (
    <fieldset aria-describedby={problem === undefined ? undefined : id} className="flex flex-col gap-2">
      <legend className="mb-1 text-sm font-medium">What it may do</legend>
      {(Object.entries(SCOPES) as [keyof typeof SCOPES, (typeof SCOPES)[keyof typeof SCOPES]][]).map(([scope, { name, meaning }]) => (
        <label key={scope} className="flex items-start gap-2 text-sm">
          <input
            type="checkbox"
            className="mt-0.5 size-4 accent-brand"
            checked={chosen.includes(scope)}
            onChange={(event) => onChange(event.target.checked ? [...chosen, scope] : chosen.filter((one) => one !== scope))}
          />
          <span>
            {name}
            <span className="block text-xs text-soft">{meaning}</span>
          </span>
        </label>
      ))}
      {problem !== undefined && <p id={id} role="alert" className="text-xs text-bad">{problem}</p>}
    </fieldset>
  );
}
