"use client";

import type { Model } from "farlabs";
import { ModelPart } from "@/components/network/ModelPart";
import { NetworkMap } from "@/components/network/NetworkMap";
import { nodes, nodesOf, type Places, placesOf, sentenceOf } from "@/components/network/network";
import { Card, Stat } from "@/components/ui/Card";
import { Empty } from "@/components/ui/Empty";
import { ErrorState } from "@/components/ui/ErrorState";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { Query } from "@/components/ui/Query";
import { Loading, Skeleton } from "@/components/ui/Skeleton";
import { count, far, percent } from "@/lib/format";
import { useActiveNodes, useModels } from "@/lib/queries";

/** What this is, what it does at this moment, and two ways in. */
export function Home() {
  const models = useModels();
  const found = useActiveNodes(models.data?.map(({ id }) => id) ?? []);
  const lists = found.flatMap(({ data }) => (data === undefined ? [] : [data.nodes]));
  const isKnown = models.data !== undefined && found.every(({ isPending }) => !isPending);
  const failed = found.find(({ data, error }) => data === undefined && error !== null);
  const there = nodesOf(lists);
  return (
    <div className="flex flex-col gap-8">
      <Introduction />
      <section aria-labelledby="now">
        <h2 id="now" className="mb-4 text-xl font-semibold">At this moment</h2>
        <Query what="The state of the network" query={models} loading={<LoadingNumbers />}>
          {(onSale) => <Numbers models={onSale} nodeCount={isKnown && failed === undefined ? there.length : undefined} />}
        </Query>
      </section>
      {(models.isPending || models.data !== undefined) && (
        <>
          <Card title="Where the nodes are">
            {!isKnown && <Skeleton className="aspect-[1000/435] w-full" />}
            {failed !== undefined && <ErrorState what="The nodes" error={failed.error} onRetry={() => void failed.refetch()} />}
            {isKnown && failed === undefined && <Where places={placesOf(there)} total={there.length} />}
          </Card>
          <Card title="Models and who serves them">
            {models.data === undefined ? (
              <Loading what="the models" lines={6} />
            ) : models.data.length === 0 ? (
              <Empty title="No model is on sale here">Whoever runs this gateway has offered none yet.</Empty>
            ) : (
              <>
                <p className="mb-5 max-w-prose text-sm text-soft">
                  From left to right the blocks of a model, and a brick for each node that serves one; where the frame is
                  dashed, nobody does.
                </p>
                <div>
                  {models.data.map((model, place) => (
                    <ModelPart key={model.id} model={model} found={found[place]} />
                  ))}
                </div>
              </>
            )}
          </Card>
        </>
      )}
      <p role="status" className="sr-only">
        {isKnown && told(models.data, there.length)}
      </p>
    </div>
  );
}

function Introduction() {
  return (
    <section className="flex flex-col gap-5">
      <h1 className="text-3xl font-bold tracking-tight text-balance sm:text-4xl">Language models on many people’s GPUs</h1>
      <p className="max-w-prose text-lg text-soft">
        A model that is too big for one graphics card is cut into blocks, and people all over the internet serve some of them
        each. Ask it something here and see which machines answer, block by block. Whoever serves is paid in FAR for exactly
        the tokens that their machine has worked on, by receipts that anybody can check.
      </p>
      <div className="flex flex-wrap gap-3">
        <ButtonLink href="/playground">Try it</ButtonLink>
        <ButtonLink href="/gpu/distributed" kind="quiet">Provide a GPU</ButtonLink>
      </div>
    </section>
  );
}

function LoadingNumbers() {
  return (
    <div role="status" className="grid gap-4 sm:grid-cols-2 lg:grid-cols-4">
      <span className="sr-only">Loading the state of the network</span>
      {["models", "nodes", "load", "price"].map((name) => (
        <Skeleton key={name} className="h-28 w-full" />
      ))}
    </div>
  );
}

function Numbers({ models, nodeCount }: { models: readonly Model[]; nodeCount: number | undefined }) {
  const available = models.filter((model) => model.available);
  const busiest = models.toSorted((one, other) => other.utilisation - one.utilisation)[0];
  const cheapest = models.toSorted((one, other) => one.completion_price_units - other.completion_price_units)[0];
  return (
    <dl className="grid gap-4 sm:grid-cols-2 lg:grid-cols-4">
      <Stat name="Models that answer" value={`${available.length} of ${models.length}`} hint="available now, of those on sale" />
      <Stat name="Nodes" value={count(nodeCount)} hint="announced now and taking requests" />
      <Stat
        name="Load"
        value={percent(busiest?.utilisation)}
        hint={models.length > 1 ? `of ${busiest?.name}, the busiest: open requests of those it carries at once` : "open requests, of those it carries at once"}
      />
      <Stat
        name="1,000 tokens of an answer"
        value={cheapest === undefined ? "–" : far(1_000 * cheapest.completion_price_units)}
        hint={models.length > 1 ? `${cheapest?.name}, the cheapest` : cheapest?.name}
      />
    </dl>
  );
}

function Where({ places, total }: { places: Places; total: number }) {
  if (total === 0) return <Empty title="No node is announced now">As soon as one is, it shows up here.</Empty>;
  return (
    <>
      <NetworkMap places={places} />
      <ul className="mt-4 flex flex-wrap gap-x-6 gap-y-2 text-sm">
        {places.parts.map(({ name, count: here }) => (
          <li key={name}>
            <span className="font-medium">{name}</span> <span className="text-soft">{nodes(here)}</span>
          </li>
        ))}
        {places.unknown > 0 && (
          <li>
            <span className="font-medium">Place unknown</span> <span className="text-soft">{nodes(places.unknown)}</span>
          </li>
        )}
      </ul>
      <p className="mt-2 text-xs text-soft">
        In whole degrees, about 100 km: by the node’s address where this gateway has a database of cities, else as the node
        says. Hollow dots: only the part of the world is known.
      </p>
    </>
  );
}

/** What has changed, for who does not see it. */
function told(models: readonly Model[] | undefined, nodeCount: number): string {
  const each = (models ?? []).map(({ name, coverage, block_count: blocks }) => `${name}: ${sentenceOf(coverage, blocks)}`);
  return [`${nodes(nodeCount)} now.`, ...each].join(" ");
}
