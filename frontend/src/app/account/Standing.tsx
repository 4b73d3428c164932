"use client";

import { useQuery } from "@tanstack/react-query";
import { tiers as askTiers } from "farlabs";
import type { ReactNode } from "react";
import { Badge } from "@/components/ui/Badge";
import { Card } from "@/components/ui/Card";
import { Query } from "@/components/ui/Query";
import { when } from "@/lib/format";
import { publicTransport } from "@/lib/gateway";
import { useSession } from "@/lib/session";
import { limitsOf, nodesOf, priceOf, promiseOf, type Tier } from "./standing";

/** The tier of the account, and what each of them promises. */
export function Standing() {
  const { client, wallet } = useSession();
  const own = useQuery({ queryKey: ["account-tier", wallet], queryFn: () => client.accountTier() });
  const tiers = useQuery({
    queryKey: ["tiers"],
    queryFn: async ({ signal }) => (await askTiers(publicTransport(), { signal })).tiers,
    staleTime: 60_000,
  });
  return (
    <Card title="Tier" aside={own.data !== undefined && <Badge kind="good">{own.data.tier}</Badge>}>
      <Query what="Your tier" query={own}>
        {({ tier, until, allowed }) => (
          <>
            <p className="mb-4 max-w-prose text-sm text-soft">
              How your requests are served. {allowed.length > 1 && `Each of them may ask for ${allowed.join(" or ")}. `}
              {until !== null && `You are in ${tier} until ${when(until)}. `}
              The operator gives out tiers.
            </p>
            <Query what="What the tiers are" query={tiers}>
              {(found) => (
                <div className="flex flex-col gap-5">
                  {found.filter(({ name }) => name === tier).map((one) => <Promises key={one.name} tier={one} />)}
                  <details className="text-sm">
                    <summary className="w-fit cursor-pointer rounded-md py-2 text-soft hover:text-ink">The other tiers</summary>
                    <div className="mt-2 flex flex-col gap-5">
                      {found.filter(({ name }) => name !== tier).map((one) => <Promises key={one.name} tier={one} isNamed />)}
                    </div>
                  </details>
                </div>
              )}
            </Query>
          </>
        )}
      </Query>
    </Card>
  );
}

function Promises({ tier, isNamed = false }: { tier: Tier; isNamed?: boolean }) {
  return (
    <div>
      {isNamed && <h3 className="mb-2 font-medium">{tier.name}</h3>}
      <dl className="flex flex-col gap-2 text-sm">
        <Row name="Promise">{promiseOf(tier)}</Row>
        <Row name="Nodes">{nodesOf(tier)}</Row>
        <Row name="Price">{priceOf(tier)}</Row>
        <Row name="Limits">{limitsOf(tier)}</Row>
      </dl>
    </div>
  );
}

function Row({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="grid grid-cols-[5rem_1fr] gap-3">
      <dt className="text-soft">{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
