"use client";

import { useQuery } from "@tanstack/react-query";
import type { Channel } from "farlabs";
import { useState } from "react";
import { readContract } from "viem/actions";
import { useConfig, useConnection } from "wagmi";
import { getWalletClient } from "wagmi/actions";
import { Amount } from "@/components/ui/Amount";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { Empty } from "@/components/ui/Empty";
import { Query } from "@/components/ui/Query";
import { type Column, Table } from "@/components/ui/Table";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { short, when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { useNow } from "@/lib/useNow";
import { type ChannelAct, ChannelDialog } from "./ChannelDialog";
import { type ChannelStanding, leftOf, standingOf } from "./channels";
import type { Escrow, Holdings } from "./useHoldings";

const AGAIN_MS = 15_000;

/** Channels: opened, topped up, closed. Programs pay over them. */
export function Channels({ place, holdings }: { place: Escrow; holdings: Holdings | undefined }) {
  const { client, wallet } = useSession();
  const { address } = useConnection();
  const [open, setOpen] = useState<ChannelAct>();
  const query = useQuery({
    queryKey: ["channels", wallet],
    queryFn: ({ signal }) => client.channels({ signal }),
    refetchInterval: AGAIN_MS,
  });
  const statuses = useStatuses(place, query.data ?? []);
  const now = useNow(true, AGAIN_MS);
  const standing = (channel: Channel) => standingOf(channel, statuses[channel.channel_id], now);
  const columns: readonly Column<Channel>[] = [
    { name: "Channel", cell: ({ channel_id: id }) => <span className="font-mono text-xs" title={id}>{short(id, 10, 6)}</span> },
    { name: "Signer", cell: ({ signer }) => <span className="font-mono text-xs" title={signer}>{signer.toLowerCase() === wallet?.toLowerCase() ? "your wallet" : short(signer)}</span> },
    { name: "Put in", isNumber: true, cell: ({ deposit_units: units }) => <Amount units={units} /> },
    { name: "Promised", isNumber: true, cell: ({ promised_units: units }) => <Amount units={units} /> },
    { name: "Spent", isNumber: true, cell: ({ captured_units: units }) => <Amount units={units} /> },
    { name: "Left", isNumber: true, cell: (channel) => (standing(channel) === "closed" ? "–" : <Amount units={leftOf(channel)} />) },
    { name: "State", cell: (channel) => <State standing={standing(channel)} closesAt={channel.closes_at} /> },
    {
      name: "Actions",
      cell: (channel) => (address === undefined ? "–" : <Actions channel={channel} standing={standing(channel)} onAct={setOpen} />),
    },
  ];
  return (
    <>
      <p className="max-w-prose text-sm text-soft">
        For programs that pay while they are answered, with signatures that cost no gas: a part of your deposit is set aside,
        and each signature promises a little more of it. Neither side risks more than one step. Most people need none.
      </p>
      {address !== undefined && <div><Button kind="quiet" onClick={() => setOpen({ kind: "open" })}>Open a channel</Button></div>}
      <Query what="Your payment channels" query={query}>
        {(channels) => (
          <Table
            caption="Your payment channels"
            columns={columns}
            rows={channels}
            keyOf={({ channel_id: id }) => id}
            empty={<Empty title="There is no payment channel" />}
          />
        )}
      </Query>
      <ChannelDialog act={open} place={place} holdings={holdings} onClose={() => setOpen(undefined)} />
    </>
  );
}

/** What the chain says of channels that were begun to be closed: whether that is over, the gateway does not tell. */
function useStatuses({ chainId, escrow }: Escrow, channels: readonly Channel[]): Readonly<Record<string, number>> {
  const config = useConfig();
  const { address, chainId: at } = useConnection();
  const ids = channels.filter(({ closes_at: closesAt }) => closesAt !== null).map(({ channel_id: id }) => id);
  const { data } = useQuery({
    queryKey: ["channels", "on chain", chainId, escrow, ...ids],
    enabled: ids.length > 0 && address !== undefined && at === chainId,
    refetchInterval: AGAIN_MS,
    queryFn: async () => {
      const wallet = await getWalletClient(config, { account: address, chainId });
      const found = await Promise.all(
        ids.map((id) => readContract(wallet, { address: escrow, abi: escrowAbi, functionName: "channelOf", args: [id as `0x${string}`] })),
      );
      return Object.fromEntries(ids.map((id, place) => [id, found[place]?.status ?? 0]));
    },
  });
  return data ?? {};
}

function State({ standing, closesAt }: { standing: ChannelStanding; closesAt: string | null }) {
  switch (standing) {
    case "open":
      return <Badge kind="good">open</Badge>;
    case "closing":
      return <span title={`The last voucher can be redeemed until ${when(closesAt)}`}><Badge kind="warn">closing</Badge> until {when(closesAt)}</span>;
    case "to finish":
      return <Badge kind="warn">to be finished</Badge>;
    case "closed":
      return <Badge>closed</Badge>;
  }
}

function Actions({ channel, standing, onAct }: { channel: Channel; standing: ChannelStanding; onAct: (act: ChannelAct) => void }) {
  const name = <span className="sr-only"> {short(channel.channel_id, 10, 6)}</span>;
  if (standing === "open") {
    return (
      <span className="flex flex-wrap gap-2">
        <Button kind="quiet" onClick={() => onAct({ kind: "top up", channel })}>Top up{name}</Button>
        <Button kind="danger" onClick={() => onAct({ kind: "close", channel })}>Close{name}</Button>
      </span>
    );
  }
  if (standing === "to finish") return <Button kind="quiet" onClick={() => onAct({ kind: "finish", channel })}>Take back{name}</Button>;
  return "–";
}
