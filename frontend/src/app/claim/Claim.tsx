"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { claimNode, type ClaimedNode, howToServe, signNodeClaim, type UnsignedNodeClaim } from "farlabs";
import { walletClientSigner } from "farlabs/viem";
import { type ReactNode, useEffect, useState, useSyncExternalStore } from "react";
import { useConfig, useConnection, useSwitchChain } from "wagmi";
import { getWalletClient } from "wagmi/actions";
import { WalletButton } from "@/components/shell/WalletButton";
import { Badge } from "@/components/ui/Badge";
import { Button } from "@/components/ui/Button";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { Card } from "@/components/ui/Card";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Empty } from "@/components/ui/Empty";
import { ErrorState } from "@/components/ui/ErrorState";
import { Notice } from "@/components/ui/Notice";
import { PageHeader } from "@/components/ui/PageHeader";
import { Loading } from "@/components/ui/Skeleton";
import { explain } from "@/lib/explain";
import { when } from "@/lib/format";
import { gatewayUrl, publicTransport } from "@/lib/gateway";
import { usePayments } from "@/lib/queries";
import { chainOf } from "@/lib/wallet";
import { check, type Check, type Link, readLink, remaining } from "./link";

/** The page that `far-node claim` links to: a wallet says that a node earns for it. */
export function Claim() {
  const link = useLink();
  return (
    <>
      <PageHeader title="Claim a node">
        Your wallet signs that a node earns for it, and marketplaces show the node to you as yours. The node has signed the same
        already.
      </PageHeader>
      <Told link={link} />
    </>
  );
}

function Told({ link }: { link: Link | "reading" }) {
  if (link === "reading") return <Loading what="the link" />;
  if (link === undefined) return <HowTo />;
  if ("problem" in link) {
    return (
      <div className="flex flex-col gap-6">
        <Notice kind="bad" title="This link cannot be used">{link.problem}</Notice>
        <HowTo />
      </div>
    );
  }
  return <Sign claim={link.claim} key={link.claim.node_signature} />;
}

function HowTo() {
  const { address } = useConnection();
  return (
    <Card title="How to get a link">
      <p className="mb-3 max-w-prose text-sm text-soft">On the machine of the node{address === undefined && ", with the address of your wallet in the place of 0x…"}:</p>
      <CodeBlock code={`far-node claim --gateway ${gatewayUrl()} --wallet ${address ?? "0x…"}`} what="the command that makes a link" />
      <p className="mt-3 max-w-prose text-sm text-soft">
        It prints a link, and draws it as a QR code. Open it within half an hour where your wallet is. What is in it stands
        behind the #, which browsers send to nobody.
      </p>
    </Card>
  );
}

function Sign({ claim }: { claim: UnsignedNodeClaim }) {
  const payments = usePayments();
  const serving = useQuery({ queryKey: ["how-to-serve"], queryFn: ({ signal }) => howToServe(publicTransport(), { signal }) });
  const now = useNow();
  const { address } = useConnection();
  const { act, isBusy, problem, done } = useSigning(claim);

  if (done !== undefined) return <Done claimed={done} />;
  const place = { gateway: serving.data?.gateway, chainId: payments.data?.chain_id, wallet: address, now };
  const checks = check(claim, place);
  const failed = serving.data === undefined && serving.error !== null ? serving : payments.data === undefined && payments.error !== null ? payments : undefined;
  return (
    <div className="flex flex-col gap-6">
      <Card title="What is signed">
        <dl className="flex flex-col gap-4 text-sm">
          <Row name="Node"><span className="font-mono break-all">{claim.node_id}</span></Row>
          <Row name="Wallet that is paid" check={found(checks, "wallet")}><span className="font-mono break-all">{claim.wallet_address}</span></Row>
          <Row name="Gateway" check={found(checks, "gateway")}><span className="font-mono break-all">{claim.gateway}</span></Row>
          <Row name="Chain" check={found(checks, "chain")}>{chainOf({ chain_id: claim.chain_id }).name} ({claim.chain_id})</Row>
          <Row name="Made">{when(new Date(claim.nonce).toISOString())}</Row>
          <Row name="To be signed until" check={found(checks, "deadline")}>
            {when(new Date(1000 * claim.deadline).toISOString())} ({remaining(claim.deadline - now)})
          </Row>
        </dl>
      </Card>
      {failed !== undefined && <ErrorState what="What this gateway is" error={failed.error} onRetry={() => void failed.refetch()} />}
      {checks.filter(({ isRight }) => isRight === false).map(({ name, advice }) => (
        <Notice key={name} kind="bad" title={WRONG[name]}>{advice}</Notice>
      ))}
      {address === undefined ? (
        <Empty title="Connect the wallet that is to be paid">
          <p>It signs; that moves no money and costs nothing.</p>
          <div className="mt-4 flex justify-center"><WalletButton /></div>
        </Empty>
      ) : (
        <div className="flex flex-col items-start gap-3">
          <Button onClick={() => void act()} disabled={isBusy || checks.some(({ isRight }) => isRight !== true)}>
            {isBusy ? "Waiting for your wallet" : "Sign the claim"}
          </Button>
          <p className="text-sm text-soft">Signing moves no money and costs nothing. It says whose node this is, and nothing else.</p>
        </div>
      )}
      {problem !== undefined && <Notice kind="bad" title="The node was not claimed">{problem}</Notice>}
    </div>
  );
}

const WRONG: Readonly<Record<Check["name"], string>> = {
  gateway: "This claim is for another gateway",
  chain: "This claim is for another chain",
  deadline: "This claim cannot be signed now",
  wallet: "This claim is for another wallet",
};

function Done({ claimed }: { claimed: ClaimedNode }) {
  return (
    <div className="flex flex-col items-start gap-4">
      <Notice kind="good" title="The node is yours">
        <p><span className="font-mono break-all">{claimed.node_id}</span> earns for your wallet, as both say.</p>
        <p className="mt-1">
          {claimed.announced
            ? "The swarm hears of it."
            : "The swarm does not hear of it yet: is it running? A node that has just been started takes up to half a minute."}
        </p>
      </Notice>
      <ButtonLink href="/provider/dashboard">See what it earns</ButtonLink>
    </div>
  );
}

function Row({ name, check: checked, children }: { name: string; check?: Check | undefined; children: ReactNode }) {
  return (
    <div className="grid gap-1 sm:grid-cols-[12rem_1fr]">
      <dt className="text-soft">{name}</dt>
      <dd className="flex flex-wrap items-baseline gap-2">
        {children}
        {checked?.isRight === true && <Badge kind="good">right</Badge>}
        {checked?.isRight === false && <Badge kind="bad">wrong</Badge>}
      </dd>
    </div>
  );
}

function found(checks: readonly Check[], name: Check["name"]): Check | undefined {
  return checks.find((one) => one.name === name);
}

/** Has the wallet sign, and hands the claim in. */
function useSigning(claim: UnsignedNodeClaim) {
  const config = useConfig();
  const { address, chainId } = useConnection();
  const { mutateAsync: switchChain } = useSwitchChain();
  const queries = useQueryClient();
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string>();
  const [done, setDone] = useState<ClaimedNode>();

  async function act() {
    if (address === undefined) return;
    setBusy(true);
    setProblem(undefined);
    try {
      // wallets refuse to sign for a chain that they are not on
      if (chainId !== claim.chain_id) await switchChain({ chainId: claim.chain_id });
      const wallet = await getWalletClient(config, { account: address, chainId: claim.chain_id });
      const signed = await signNodeClaim(walletClientSigner(wallet as never, address), claim);
      setDone(await claimNode(publicTransport(), signed));
      await queries.invalidateQueries({ queryKey: ["provider"] });
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  }
  return { act, isBusy, problem, done };
}

/** What stands behind the #; read in the browser alone, where it is. */
function useLink(): Link | "reading" {
  const fragment = useSyncExternalStore(followed, () => window.location.hash, () => undefined);
  return fragment === undefined ? "reading" : readLink(fragment);
}

function followed(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

const TICK_MS = 1_000;

/** Unix time in seconds, again every second. */
function useNow(): number {
  const [now, setNow] = useState(() => Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  return now;
}
