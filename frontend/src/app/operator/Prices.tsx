"use client";

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { formatFar, type ListedPrice } from "farlabs";
import { type FormEvent, useState } from "react";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { Dialog } from "@/components/ui/Dialog";
import { Field } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { Query } from "@/components/ui/Query";
import { type Column, Table } from "@/components/ui/Table";
import { explain } from "@/lib/explain";
import { far } from "@/lib/format";
import { useSession } from "@/lib/session";
import { AGAIN_MS, readPrice, sourceOf } from "./operating";

const TOKENS = 1_000;

/** What is asked for a token, before demand; every model in every tier. */
export function Prices() {
  const { client, wallet } = useSession();
  const [changing, setChanging] = useState<ListedPrice>();
  const prices = useQuery({ queryKey: ["operator", wallet, "prices"], queryFn: ({ signal }) => client.listPrices({ signal }), refetchInterval: AGAIN_MS });
  const columns: readonly Column<ListedPrice>[] = [
    { name: "Model", cell: ({ model_id: model }) => <span className="break-all">{model}</span> },
    { name: "Tier", cell: ({ tier }) => tier },
    { name: "1,000 tokens of prompt", isNumber: true, cell: ({ price }) => (price === null ? "–" : <Price units={price.prompt_price_units} />) },
    { name: "1,000 tokens of answer", isNumber: true, cell: ({ price }) => (price === null ? "–" : <Price units={price.completion_price_units} />) },
    { name: "From", cell: (one) => sourceOf(one) },
    {
      name: "Change",
      cell: (one) => (
        <Button kind="quiet" onClick={() => setChanging(one)}>
          Change<span className="sr-only"> the {one.tier} price of {one.model_id}</span>
        </Button>
      ),
    },
  ];
  return (
    <Card title="Prices">
      <p className="mb-4 max-w-prose text-sm text-soft">
        Before demand, which may raise them by up to a half. A change counts at once for what is asked from then on; requests
        under way and quotes keep their price. A tier without a price of its own costs a multiple of
        standard, or is not sold.
      </p>
      <Query what="The prices" query={prices}>
        {(found) => <Table caption="What tokens cost before demand" columns={columns} rows={found} keyOf={({ model_id: model, tier }) => `${model} ${tier}`} />}
      </Query>
      <Dialog title={changing === undefined ? "Change a price" : `${changing.tier} price of ${changing.model_id}`} isOpen={changing !== undefined} onClose={() => setChanging(undefined)} isSheet>
        {changing !== undefined && <Change listed={changing} onDone={() => setChanging(undefined)} />}
      </Dialog>
    </Card>
  );
}

function Price({ units }: { units: number }) {
  return <span title={`${units} × 10⁻⁹ FAR for a token`}>{far(BigInt(units) * BigInt(TOKENS))}</span>;
}

function typed(units: number | undefined): string {
  return units === undefined ? "" : formatFar(BigInt(units) * BigInt(TOKENS));
}

function Change({ listed, onDone }: { listed: ListedPrice; onDone: () => void }) {
  const { client } = useSession();
  const queries = useQueryClient();
  const [prompt, setPrompt] = useState(typed(listed.price?.prompt_price_units));
  const [completion, setCompletion] = useState(typed(listed.price?.completion_price_units));
  const ofPrompt = readPrice(prompt, { least: 0 });
  const ofAnswer = readPrice(completion, { least: 1 });
  const { mutate, error, isPending } = useMutation({
    mutationFn: (price: { prompt_price_units: number; completion_price_units: number } | null) =>
      client.setListPrice({ model: listed.model_id, tier: listed.tier, price }),
    onSuccess: async () => {
      await Promise.all([queries.invalidateQueries({ queryKey: ["operator"] }), queries.invalidateQueries({ queryKey: ["models"] })]);
      onDone();
    },
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    if (ofPrompt.value === undefined || ofAnswer.value === undefined) return;
    mutate({ prompt_price_units: ofPrompt.value, completion_price_units: ofAnswer.value });
  }
  return (
    <form onSubmit={submit} className="flex flex-col gap-4 text-sm">
      <Field label="1,000 tokens of prompt, FAR" inputMode="decimal" required autoComplete="off" value={prompt} onChange={(event) => setPrompt(event.target.value)} problem={ofPrompt.problem} />
      <Field label="1,000 tokens of answer, FAR" inputMode="decimal" required autoComplete="off" value={completion} onChange={(event) => setCompletion(event.target.value)} problem={ofAnswer.problem} />
      {error !== null && <Notice kind="bad" title="The price was not changed">{explain(error)}</Notice>}
      <div className="flex flex-wrap justify-end gap-2">
        {listed.source === "database" && <Button kind="quiet" disabled={isPending} onClick={() => mutate(null)}>Leave it to the settings</Button>}
        <Button type="submit" disabled={isPending || ofPrompt.value === undefined || ofAnswer.value === undefined}>Set the price</Button>
      </div>
    </form>
  );
}
