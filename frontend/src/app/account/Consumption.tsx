"use client";

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { FarLabsClient, Usage } from "farlabs";
import { type ReactNode, useState } from "react";
import { Chart } from "@/components/charts/Chart";
import { dayOf } from "@/components/charts/series";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { Empty } from "@/components/ui/Empty";
import { Select } from "@/components/ui/Field";
import { Query } from "@/components/ui/Query";
import { Loading } from "@/components/ui/Skeleton";
import { explain } from "@/lib/explain";
import { count } from "@/lib/format";
import { saveFile } from "@/lib/saveFile";
import { useSession } from "@/lib/session";
import { chartOf, type Cut, CUTS, lastDays, type Line, type Measure, MEASURES } from "./consuming";

const PERIODS = { 7: "7 days", 30: "30 days", 90: "90 days", 365: "365 days" } as const;
const AGAIN_MS = 15_000;
const PAGE = 1_000;
/** A year of many models and keys; a spreadsheet takes the rest. */
const MOST_PAGES = 20;

interface Used {
  total: Usage["total"];
  lines: Line[];
  from: string;
  to: string;
  isAll: boolean;
}

async function used(client: FarLabsClient, time: { from: string; to: string }, signal: AbortSignal): Promise<Used> {
  const lines: Line[] = [];
  let cursor: string | undefined;
  for (let page = 1; ; page++) {
    const found = await client.usage({ ...time, limit: PAGE, cursor, signal });
    lines.push(...found.usage);
    cursor = found.next_cursor ?? undefined;
    if (cursor === undefined || page === MOST_PAGES) return { total: found.total, lines, from: found.from, to: found.to, isAll: cursor === undefined };
  }
}

/** What was used, by day, model and key. */
export function Consumption() {
  const { client, wallet } = useSession();
  const [days, setDays] = useState("30");
  const [cut, setCut] = useState<Cut>("model");
  const [measure, setMeasure] = useState<Measure>("cost");
  const query = useQuery({
    queryKey: ["usage", wallet, days],
    queryFn: ({ signal }) => used(client, lastDays(Number(days), Date.now()), signal),
    refetchInterval: AGAIN_MS,
    placeholderData: keepPreviousData,
  });
  return (
    <Card title="Usage" aside={<Download days={Number(days)} />}>
      <div className="mb-4 grid grid-cols-1 gap-3 sm:grid-cols-3">
        <Select label="Time" value={days} onChange={(event) => setDays(event.target.value)}>
          {Object.entries(PERIODS).map(([value, name]) => <option key={value} value={value}>The last {name}</option>)}
        </Select>
        <Select label="What" value={measure} onChange={(event) => setMeasure(event.target.value as Measure)}>
          {Object.entries(MEASURES).map(([value, { name }]) => <option key={value} value={value}>{name}</option>)}
        </Select>
        <Select label="By" value={cut} onChange={(event) => setCut(event.target.value as Cut)}>
          {Object.entries(CUTS).map(([value, name]) => <option key={value} value={value}>{name}</option>)}
        </Select>
      </div>
      <Query what="Your usage" query={query} loading={<Loading what="your usage" lines={6} />}>
        {(found) => <Shown found={found} cut={cut} measure={measure} />}
      </Query>
    </Card>
  );
}

function Shown({ found, cut, measure }: { found: Used; cut: Cut; measure: Measure }) {
  const { total, lines, isAll } = found;
  const { series, points } = chartOf(lines, found, cut, measure);
  const { name, format } = MEASURES[measure];
  return (
    <>
      <dl className="mb-4 grid grid-cols-2 gap-x-4 gap-y-2 text-sm sm:grid-cols-4">
        <Sum name="Cost"><Amount units={total.cost_units} /></Sum>
        <Sum name="Requests" hint={total.failed_requests > 0 ? `${count(total.failed_requests)} failed and cost nothing` : undefined}>{count(total.requests)}</Sum>
        <Sum name="Tokens of prompts" hint={total.cached_tokens > 0 ? `${count(total.cached_tokens)} of them known from before` : undefined}>{count(total.prompt_tokens)}</Sum>
        <Sum name="Tokens of answers">{count(total.completion_tokens)}</Sum>
      </dl>
      <Chart
        title={`${name} per day (UTC), by ${CUTS[cut] === "Model" ? "model" : "API key"}`}
        kind="bars"
        axis="Day"
        series={series}
        points={points}
        nameOf={dayOf}
        format={format}
        empty={<Empty title="Nothing was used in this time">What you ask models, and what it costs, is counted here.</Empty>}
      />
      {!isAll && <p className="mt-2 text-sm text-soft">The oldest days are missing in the chart, as there are too many lines. The CSV has all of them.</p>}
    </>
  );
}

function Sum({ name, hint, children }: { name: string; hint?: string | undefined; children: ReactNode }) {
  return (
    <div>
      <dt className="text-soft">{name}</dt>
      <dd className="font-medium tabular-nums">{children}</dd>
      {hint !== undefined && <dd className="text-xs text-soft">{hint}</dd>}
    </div>
  );
}

function Download({ days }: { days: number }) {
  const { client } = useSession();
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  async function download() {
    setBusy(true);
    setProblem(undefined);
    const time = lastDays(days, Date.now());
    try {
      saveFile(`usage-${time.from}-${time.to}.csv`, await client.usageCsv(time), "text/csv");
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  }
  return (
    <div className="flex flex-wrap items-center gap-3">
      {problem !== undefined && <p role="alert" className="text-sm text-bad">{problem}</p>}
      <Button kind="quiet" onClick={() => void download()} disabled={isBusy}>Download as CSV</Button>
    </div>
  );
}
