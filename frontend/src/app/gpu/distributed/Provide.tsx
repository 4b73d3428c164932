"use client";

import { useQuery } from "@tanstack/react-query";
import { howToServe, type HowToServe, type Model } from "farlabs";
import { useState } from "react";
import { CodeBlock } from "@/components/ui/CopyButton";
import { Card } from "@/components/ui/Card";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { Empty } from "@/components/ui/Empty";
import { Field, Select } from "@/components/ui/Field";
import { Notice } from "@/components/ui/Notice";
import { PageHeader } from "@/components/ui/PageHeader";
import { Query } from "@/components/ui/Query";
import { Loading } from "@/components/ui/Skeleton";
import { readAddress } from "@/lib/address";
import { gatewayUrl, publicTransport } from "@/lib/gateway";
import { useModels } from "@/lib/queries";
import { useSession } from "@/lib/session";
import { Earnings } from "./Earnings";
import { Memory } from "./Memory";
import { type Device, fits, GPUS, mostNeeded, type Quantization, quoted, replicasOf, startCommand, usual } from "./serving";

/** The way from a machine to a node that earns. */
export function Provide() {
  const models = useModels();
  const serving = useQuery({
    queryKey: ["how-to-serve"],
    queryFn: ({ signal }) => howToServe(publicTransport(), { signal }),
    refetchInterval: 60_000,
  });
  return (
    <>
      <PageHeader title="Provide a GPU">
        Your machine serves some blocks of a model together with others, and is paid for the work that it can prove. There is
        nothing to register: a wallet address is enough.
      </PageHeader>
      <Requirements />
      <Query what="What it takes to serve here" query={serving} loading={<Loading what="what it takes to serve here" lines={8} />}>
        {(how) =>
          how.models.length === 0 ? (
            <Empty title="No model is on sale here">Whoever runs this gateway has offered none yet.</Empty>
          ) : (
            <Setup how={how} models={models.data ?? []} />
          )
        }
      </Query>
    </>
  );
}

const OTHER = "other";
const CPU = "cpu";
const INSTALL = "sh deploy/install.sh";

function Setup({ how, models }: { how: HowToServe; models: readonly Model[] }) {
  const { wallet } = useSession();
  const [typed, setTyped] = useState<string>();
  const [machine, setMachine] = useState("RTX 4090");
  const [memory, setMemory] = useState("24");
  const [modelId, setModelId] = useState(how.models[0]?.model_id ?? "");
  const [kind, setKind] = useState<Quantization>();
  const [isBehindRouter, setBehindRouter] = useState(false);

  const device: Device = machine === CPU ? "cpu" : "cuda";
  const gib = Number(memory);
  const isMemory = memory.trim() !== "" && Number.isFinite(gib) && gib > 0 && gib <= 4096;
  const { address, problem } = readAddress(typed ?? wallet ?? "");
  const model = how.models.find(({ model_id: id }) => id === modelId) ?? how.models[0];
  if (model === undefined) return null;
  const found = fits(model, device, isMemory ? gib : 0);
  const chosen = kind ?? usual(found, device);
  const fit = found.find(({ quantization }) => quantization === chosen);
  const onSale = models.find(({ id }) => id === model.model_id);
  const replicas = onSale === undefined ? [] : replicasOf(onSale);
  const range = fit === undefined ? undefined : mostNeeded(fit.ranges, replicas);

  function choose(name: string) {
    setMachine(name);
    setKind(undefined);
    const gpu = GPUS.find((one) => one.name === name);
    if (gpu !== undefined) setMemory(String(gpu.gib));
  }

  return (
    <div className="flex flex-col gap-6">
      <Card title="1. Your wallet">
        <Field
          label="Address that is paid"
          hint={
            typed === undefined && wallet !== undefined
              ? "The wallet that is connected here. Another one will do as well; its key never has to be on the machine of the node."
              : "0x… of any wallet of an EVM chain. Connect one above to have it filled in; its key never has to be on the machine of the node."
          }
          problem={problem}
          value={typed ?? wallet ?? ""}
          onChange={(event) => setTyped(event.target.value)}
          autoComplete="off"
          spellCheck={false}
          placeholder="0x…"
          className="font-mono"
        />
      </Card>

      <Card title="2. Your machine">
        <div className="grid gap-4 sm:grid-cols-2">
          <Select label="GPU" value={machine} onChange={(event) => choose(event.target.value)}>
            {GPUS.map(({ name, gib: size }) => (
              <option key={name} value={name}>{`${name} (${size} GB)`}</option>
            ))}
            <option value={OTHER}>Another GPU</option>
            <option value={CPU}>No GPU: the processor</option>
          </Select>
          <Field
            label={device === "cpu" ? "Free memory, in GiB" : "Memory of the GPU, in GiB"}
            hint="What else runs on it counts too: what you write should be free."
            problem={isMemory ? undefined : "Write a number of GiB."}
            inputMode="decimal"
            value={memory}
            onChange={(event) => setMemory(event.target.value)}
          />
        </div>
        <fieldset className="mt-4">
          <legend className="text-sm font-medium">Can others open a connection to your machine?</legend>
          <div className="mt-2 flex flex-col gap-2 text-sm">
            <label className="flex gap-2">
              <input type="radio" name="reach" checked={!isBehindRouter} onChange={() => setBehindRouter(false)} className="accent-brand" />
              Yes: TCP port 31330 is open, or forwarded by my router
            </label>
            <label className="flex gap-2">
              <input type="radio" name="reach" checked={isBehindRouter} onChange={() => setBehindRouter(true)} className="accent-brand" />
              No, or I do not know: through a relay, which is slower
            </label>
          </div>
        </fieldset>
      </Card>

      <Card title="3. The model">
        <div className="flex flex-col gap-4">
          <Select
            label="Model to serve"
            hint="Those that this marketplace sells: work on others is paid by nobody here."
            value={model.model_id}
            onChange={(event) => {
              setModelId(event.target.value);
              setKind(undefined);
            }}
          >
            {how.models.map(({ model_id: id }) => (
              <option key={id} value={id}>{id}</option>
            ))}
          </Select>
          <Memory found={found} usual={usual(found, device)} chosen={chosen} device={device} onChoose={setKind} />
        </div>
      </Card>

      <Card title="4. Start it">
        <ol className="flex flex-col gap-4 text-sm">
          <li>
            <p className="mb-2">
              Install, in a copy of the source code of Far Mesh. It needs no root, brings what your {device === "cpu" ? "machine" : "GPU"} needs,
              and takes some minutes:
            </p>
            <CodeBlock code={INSTALL} what="the command that installs" />
          </li>
          <li>
            <p className="mb-2">Start:</p>
            {address === undefined ? (
              <Notice kind="info" title="The address of your wallet is missing">Fill it in above, and the command stands here.</Notice>
            ) : fit === undefined || fit.blocks === 0 ? (
              <Notice kind="warn" title="Nothing to start">Not one block of this model fits. Choose coarser weights or another model.</Notice>
            ) : (
              <CodeBlock
                what="the command that starts the node"
                code={startCommand({
                  model,
                  wallet: address,
                  gateway: gatewayUrl(),
                  prefix: how.prefix,
                  isPrivate: how.is_private,
                  device,
                  quantization: kind === undefined || kind === usual(found, device) ? undefined : kind,
                  isBehindRouter,
                })}
              />
            )}
            {address !== undefined && <Hints how={how} hasSource={model.source !== null} />}
          </li>
          {address !== undefined && (
            <li>
              <p className="mb-2">
                When it says <code>serving</code>, bind it to your wallet, so that the dashboard shows it as yours. This prints a
                link that you open where your wallet is:
              </p>
              <CodeBlock
                what="the command that binds the node to your wallet"
                code={`far-node claim --gateway ${quoted(gatewayUrl())} --wallet ${address}`}
              />
            </li>
          )}
        </ol>
        <div className="mt-4">
          <ButtonLink kind="quiet" href="/provider/dashboard">See what your nodes earn</ButtonLink>
        </div>
      </Card>

      <Earnings model={model} onSale={onSale} range={range} replicas={replicas} />
    </div>
  );
}

function Hints({ how, hasSource }: { how: HowToServe; hasSource: boolean }) {
  const isHere = typeof window !== "undefined" && ["localhost", "127.0.0.1", "[::1]"].includes(window.location.hostname);
  return (
    <div className="mt-2 flex flex-col gap-2">
      {isHere && (
        <p className="text-soft">This gateway is on the machine that you are looking from: the command works there alone.</p>
      )}
      {how.is_private && (
        <p className="text-soft">
          This swarm is private: ask whoever runs it for its file and an invitation, and name them in the place of{" "}
          <code>swarm.json</code> and <code>invitation.txt</code>.
        </p>
      )}
      {!how.is_private && how.initial_peers.length === 0 && (
        <p className="text-soft">This gateway names no peer of its swarm: ask whoever runs it for one, and pass it with <code>--initial-peers</code>.</p>
      )}
      {!hasSource && (
        <p className="text-soft">
          The files of this model are with whoever runs this marketplace: ask for them, and write their directory in the place
          of <code>DIRECTORY</code>. Only nodes with the same weights work together.
        </p>
      )}
    </div>
  );
}

function Requirements() {
  return (
    <Card title="Before you begin" className="mb-6">
      <ul className="grid list-disc gap-x-10 gap-y-2 pl-5 text-sm text-soft lg:grid-cols-2">
        <li>64-bit Linux, on a machine that is on most of the day. A GPU is better; a processor works too.</li>
        <li>A node serves everybody who finds it. Requests that come through a marketplace are paid; others are not.</li>
        <li>
          Your node sees numbers and not text, but much of the text can be read back from them: you take part in other people’s
          privacy.
        </li>
        <li>What is wrong with a machine <code>far-node doctor</code> says, without changing anything.</li>
      </ul>
    </Card>
  );
}
