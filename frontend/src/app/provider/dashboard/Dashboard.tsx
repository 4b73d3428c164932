"use client";

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import type { Node, ProviderStats, Rewards } from "farlabs";
import { useState } from "react";
import { Chart } from "@/components/charts/Chart";
import { dayOf } from "@/components/charts/series";
import { Amount } from "@/components/ui/Amount";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { Card, Stat } from "@/components/ui/Card";
import { Empty } from "@/components/ui/Empty";
import { NeedsWallet } from "@/components/ui/NeedsWallet";
import { PageHeader } from "@/components/ui/PageHeader";
import { Query } from "@/components/ui/Query";
import { Loading } from "@/components/ui/Skeleton";
import { Tabs } from "@/components/ui/Tabs";
import { count, far, milliseconds, percent, short } from "@/lib/format";
import { useSession } from "@/lib/session";
import { apart, chartOf } from "./earning";
import { History } from "./History";
import { Money } from "./Money";
import { Nodes } from "./Nodes";

const AGAIN_MS = 5_000;

/** What one's nodes do and earn. Asked again by itself. */
export function Dashboard() {
  return (
    <>
      <PageHeader title="Earnings" aside={<ButtonLink kind="quiet" href="/gpu/distributed">Add a node</ButtonLink>}>
        What your nodes do, what they have earned, and where the money is.
      </PageHeader>
      <NeedsWallet what="what your nodes earn">
        <Earned />
      </NeedsWallet>
    </>
  );
}

const PERIODS = [
  { name: "7", label: "7 days" },
  { name: "30", label: "30 days" },
  { name: "90", label: "90 days" },
] as const;

type Period = (typeof PERIODS)[number]["name"];

function Earned() {
  const { client, wallet } = useSession();
  const [period, setPeriod] = useState<Period>("30");
  const stats = useQuery({
    queryKey: ["provider", wallet, "stats"],
    queryFn: ({ signal }) => client.providerStats({ signal }),
    refetchInterval: AGAIN_MS,
  });
  const nodes = useQuery({
    queryKey: ["provider", wallet, "nodes"],
    queryFn: ({ signal }) => client.providerNodes({ signal }),
    refetchInterval: AGAIN_MS,
  });
  const rewards = useQuery({
    queryKey: ["provider", wallet, "rewards", period],
    queryFn: ({ signal }) => client.rewards({ days: Number(period), signal }),
    refetchInterval: AGAIN_MS,
    placeholderData: keepPreviousData,
  });
  if (rewards.data?.earned_units === 0 && nodes.data?.length === 0 && stats.data?.totalTokensServed === 0) return <Nothing />;
  return (
    <div className="flex flex-col gap-6">
      <Query what="Your earnings" query={rewards} loading={<Loading what="your earnings" lines={4} />}>
        {(found) => <Glance rewards={found} stats={stats.data} nodes={nodes.data} />}
      </Query>
      {rewards.data !== undefined && <Money rewards={rewards.data} />}
      {rewards.data !== undefined && (
        <Card title="Earned per day and node">
          <Tabs label="Days" tabs={PERIODS} value={period} onChange={setPeriod}>
            <PerDay rewards={rewards.data} period={period} />
          </Tabs>
        </Card>
      )}
      <Card title="Your nodes">
        <Query what="Your nodes" query={nodes}>
          {(found) => <Nodes nodes={found} rewards={rewards.data} period={period} />}
        </Query>
      </Card>
      <History />
    </div>
  );
}

function Nothing() {
  return (
    <Empty title="None of your nodes has earned yet">
      <p>
        Start a node with this wallet, and what it earns stands here. One that runs already is shown once you have claimed it
        with <code>far-node claim</code>, or as soon as it has earned.
      </p>
      <div className="mt-4 flex justify-center">
        <ButtonLink href="/gpu/distributed">Start a node</ButtonLink>
      </div>
    </Empty>
  );
}

interface GlanceProps {
  rewards: Rewards;
  stats: ProviderStats | undefined;
  nodes: readonly Node[] | undefined;
}

function Glance({ rewards, stats, nodes }: GlanceProps) {
  const pending = rewards.waiting_units + rewards.in_flight_units;
  const here = nodes === undefined ? undefined : apart(nodes).here;
  const scores = (here ?? []).flatMap(({ reliability_score: score }) => (score === null ? [] : [score]));
  const serving = here?.filter(({ state }) => state === "announced").length;
  return (
    <dl aria-live="polite" aria-atomic="false" className="grid grid-cols-2 gap-3 sm:gap-4 lg:grid-cols-4">
      <Stat name="Earned" value={<Amount units={rewards.earned_units} />} hint="ever" />
      <Stat name="Pending" value={<Amount units={pending} />} hint="earned, not paid yet" />
      <Stat name="Paid" value={<Amount units={rewards.paid_units} />} hint="credited by the chain, or sent" />
      <Stat
        name="Nodes that serve now"
        value={here === undefined ? "–" : `${count(serving)} of ${count(here.length)}`}
        hint={stats === undefined ? undefined : `${count(stats.activeRequests)} ${stats.activeRequests === 1 ? "request" : "requests"} under way`}
      />
      <Stat name="Tokens served" value={count(stats?.totalTokensServed)} hint="positions computed and proven" />
      <Stat
        name="Latency"
        value={stats === undefined ? "–" : stats.avgLatencyMs === null ? "not measured" : milliseconds(stats.avgLatencyMs)}
        hint="from request to last token, mean of the last 100"
      />
      <Stat
        name="Reliability"
        value={scores.length === 0 ? "not measured" : percent(Math.min(...scores))}
        hint={scores.length === 0 ? "nothing was seen of their work yet" : scores.length === 1 ? "why stands below" : "of the least reliable node; why stands below"}
      />
      <Stat
        name="Uptime"
        value={stats?.uptime === null || stats?.uptime === undefined ? "not measured" : percent(stats.uptime)}
        hint={stats?.uptime === null || stats?.uptime === undefined ? "this gateway does not watch it" : undefined}
      />
    </dl>
  );
}

function PerDay({ rewards, period }: { rewards: Rewards; period: Period }) {
  const { series, points } = chartOf(rewards.per_day, (id) => short(id, 6, 6));
  return (
    <Chart
      title={`Earned in the last ${period} days (UTC)`}
      kind="bars"
      axis="Day"
      series={series}
      points={points}
      nameOf={dayOf}
      format={far}
      empty={<Empty title={`Nothing was earned in the last ${period} days`} />}
    />
  );
}
