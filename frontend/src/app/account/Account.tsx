"use client";

import { useQuery } from "@tanstack/react-query";
import { NeedsWallet } from "@/components/ui/NeedsWallet";
import { PageHeader } from "@/components/ui/PageHeader";
import { Query } from "@/components/ui/Query";
import { Loading } from "@/components/ui/Skeleton";
import { useSession } from "@/lib/session";
import { Balance } from "./Balance";
import { Consumption } from "./Consumption";
import { Funds } from "./Funds";
import { Keys } from "./Keys";
import { Sessions } from "./Sessions";
import { Standing } from "./Standing";
import { Webhooks } from "./Webhooks";

const AGAIN_MS = 5_000;

/** Money, what it went for, and who may spend it. */
export function Account() {
  return (
    <>
      <PageHeader title="Account">Your money, what it went for, and who may spend it. Your wallet is your account.</PageHeader>
      <NeedsWallet what="your account">
        <Everything />
      </NeedsWallet>
    </>
  );
}

function Everything() {
  const { client, wallet } = useSession();
  const balance = useQuery({
    queryKey: ["balance", wallet],
    queryFn: ({ signal }) => client.balance({ signal }),
    refetchInterval: AGAIN_MS,
  });
  return (
    <div key={wallet} className="flex flex-col gap-6">
      <Query what="Your balance" query={balance} loading={<Loading what="your balance" lines={4} />}>
        {(found) => (
          <>
            <Balance balance={found} />
            <Funds balance={found} />
          </>
        )}
      </Query>
      <Consumption />
      <Keys />
      <div className="grid items-start gap-6 lg:grid-cols-2">
        <Standing />
        <div className="flex flex-col gap-6">
          <Sessions />
          <Webhooks />
        </div>
      </div>
    </div>
  );
}
