"use client";

import type { Channel } from "farlabs";
import { type FormEvent, type ReactNode, useState } from "react";
import { Amount } from "@/components/ui/Amount";
import { Button } from "@/components/ui/Button";
import { Dialog } from "@/components/ui/Dialog";
import { Field, Select } from "@/components/ui/Field";
import { TransactionSteps } from "@/components/ui/TransactionSteps";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { readAddress } from "@/lib/address";
import { useSession } from "@/lib/session";
import { useTransaction } from "@/lib/useTransaction";
import { readAmount, toWei } from "./amount";
import { channelIdOf, DELAYS, leftOf, newSalt, USUAL_DELAY } from "./channels";
import type { Escrow, Holdings } from "./useHoldings";
import { useRefresh } from "./useRefresh";

export type ChannelAct = { kind: "open" } | { kind: "top up" | "close" | "finish"; channel: Channel };

interface ChannelDialogProps {
  act: ChannelAct | undefined;
  place: Escrow;
  holdings: Holdings | undefined;
  onClose: () => void;
}

const TITLES = { open: "Open a payment channel", "top up": "Top up the channel", close: "Close the channel", finish: "Take back what is left" } as const;

/** One transaction about a channel. */
export function ChannelDialog({ act, place, holdings, onClose }: ChannelDialogProps) {
  return (
    <Dialog title={act === undefined ? "" : TITLES[act.kind]} isOpen={act !== undefined} onClose={onClose}>
      {act?.kind === "open" && <Open place={place} holdings={holdings} />}
      {act?.kind === "top up" && <TopUp place={place} holdings={holdings} channel={act.channel} />}
      {act?.kind === "close" && <Close place={place} channel={act.channel} />}
      {act?.kind === "finish" && <Finish place={place} channel={act.channel} />}
    </Dialog>
  );
}

/** A transaction about a channel, after which the gateway looks at it. It is sent once. */
function useAct() {
  const { client } = useSession();
  const refresh = useRefresh();
  const { state, isBusy, send } = useTransaction();
  /** What follows a transaction; that the gateway has not seen it yet is no failure of it. */
  async function look(channelId: string) {
    await client.lookAtChannel(channelId).catch(() => undefined);
    await refresh();
  }
  return { state, isBusy: isBusy || state.step === "done", send, look };
}

function ActForm({ onSubmit, children }: { onSubmit: () => Promise<void>; children: ReactNode }) {
  return (
    <form
      className="flex flex-col gap-4 text-sm"
      onSubmit={(event: FormEvent) => {
        event.preventDefault();
        void onSubmit();
      }}
    >
      {children}
    </form>
  );
}

function Open({ place, holdings }: { place: Escrow; holdings: Holdings | undefined }) {
  const { wallet } = useSession();
  const { state, isBusy, send, look } = useAct();
  const [typed, setTyped] = useState("");
  const [signer, setSigner] = useState<string>();
  const [delay, setDelay] = useState<string>(USUAL_DELAY);
  const amount = readAmount(typed, holdings && { units: holdings.deposit, what: "Your deposit is" });
  const { address, problem } = readAddress(signer ?? wallet ?? "");
  async function open() {
    if (amount.units === undefined || address === undefined || wallet === undefined) return;
    const salt = newSalt();
    const hash = await send({
      address: place.escrow,
      abi: escrowAbi,
      functionName: "openChannel",
      args: [salt, address, toWei(amount.units), Number(delay)],
    });
    if (hash !== undefined) await look(channelIdOf(wallet, salt));
  }
  return (
    <ActForm onSubmit={open}>
      <Field
        label="FAR to set aside"
        hint={holdings === undefined ? "From your deposit." : <>From your deposit of <Amount units={holdings.deposit} />.</>}
        problem={amount.problem}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        disabled={isBusy}
        inputMode="decimal"
        autoComplete="off"
      />
      <Field
        label="Key that signs"
        hint="Your wallet, or the address of a key that your program has: who holds it can spend all of the channel. It cannot be changed later."
        problem={problem}
        value={signer ?? wallet ?? ""}
        onChange={(event) => setSigner(event.target.value)}
        disabled={isBusy}
        autoComplete="off"
        spellCheck={false}
        className="font-mono"
      />
      <Select
        label="Time to close it"
        hint="So long the marketplace can redeem your last promise before you have back what is left."
        value={delay}
        onChange={(event) => setDelay(event.target.value)}
        disabled={isBusy}
      >
        {Object.entries(DELAYS).map(([seconds, name]) => <option key={seconds} value={seconds}>{name}</option>)}
      </Select>
      <div className="flex justify-end"><Button type="submit" disabled={isBusy || amount.units === undefined || address === undefined}>Open it</Button></div>
      <TransactionSteps state={state} done="The channel is open" />
    </ActForm>
  );
}

function TopUp({ place, holdings, channel }: { place: Escrow; holdings: Holdings | undefined; channel: Channel }) {
  const { state, isBusy, send, look } = useAct();
  const [typed, setTyped] = useState("");
  const { units, problem } = readAmount(typed, holdings && { units: holdings.deposit, what: "Your deposit is" });
  async function add() {
    if (units === undefined) return;
    const id = channel.channel_id as `0x${string}`;
    const hash = await send({ address: place.escrow, abi: escrowAbi, functionName: "topUp", args: [id, toWei(units)] });
    if (hash !== undefined) await look(id);
  }
  return (
    <ActForm onSubmit={add}>
      <Field
        label="FAR to add"
        hint={holdings === undefined ? "From your deposit." : <>From your deposit of <Amount units={holdings.deposit} />.</>}
        problem={problem}
        value={typed}
        onChange={(event) => setTyped(event.target.value)}
        disabled={isBusy}
        inputMode="decimal"
        autoComplete="off"
      />
      <div className="flex justify-end"><Button type="submit" disabled={isBusy || units === undefined}>Add it</Button></div>
      <TransactionSteps state={state} done="It is in the channel" />
    </ActForm>
  );
}

function Close({ place, channel }: { place: Escrow; channel: Channel }) {
  const { state, isBusy, send, look } = useAct();
  async function close() {
    const id = channel.channel_id as `0x${string}`;
    const hash = await send({ address: place.escrow, abi: escrowAbi, functionName: "startClose", args: [id] });
    if (hash !== undefined) await look(id);
  }
  return (
    <ActForm onSubmit={close}>
      <p>
        Nothing more is served over it from now on. The marketplace redeems what you have promised and received; after the time
        that was agreed you take back what is left, now <Amount units={leftOf(channel)} />.
      </p>
      <div className="flex justify-end"><Button type="submit" kind="danger" disabled={isBusy}>Start to close it</Button></div>
      <TransactionSteps state={state} done="It is being closed" />
    </ActForm>
  );
}

function Finish({ place, channel }: { place: Escrow; channel: Channel }) {
  const { state, isBusy, send, look } = useAct();
  async function finish() {
    const id = channel.channel_id as `0x${string}`;
    const hash = await send({ address: place.escrow, abi: escrowAbi, functionName: "finishClose", args: [id] });
    if (hash !== undefined) await look(id);
  }
  return (
    <ActForm onSubmit={finish}>
      <p>The time is over. What is left goes back to your deposit, from which it can be spent or withdrawn.</p>
      <div className="flex justify-end"><Button type="submit" disabled={isBusy}>Take it back</Button></div>
      <TransactionSteps state={state} done="It is back in your deposit" />
    </ActForm>
  );
}
