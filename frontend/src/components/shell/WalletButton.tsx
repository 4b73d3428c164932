"use client";

import { useState } from "react";
import { useConnect, useConnection, useConnectors, useDisconnect } from "wagmi";
import { Button } from "@/components/ui/Button";
import { Dialog } from "@/components/ui/Dialog";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { short } from "@/lib/format";
import { useSession } from "@/lib/session";

/** Connect a wallet, see which one it is, sign in and out. */
export function WalletButton() {
  const [isOpen, setOpen] = useState(false);
  const { address } = useConnection();
  const { wallet, isHanded } = useSession();
  return (
    <>
      <Button kind={wallet === undefined ? "primary" : "quiet"} onClick={() => setOpen(true)} title={wallet}>
        {wallet === undefined ? "Connect wallet" : short(wallet)}
      </Button>
      <Dialog title={address === undefined ? "Connect a wallet" : "Your wallet"} isOpen={isOpen} onClose={() => setOpen(false)}>
        {isHanded && <Handed />}
        {address === undefined ? <Choose /> : <Connected onLeave={() => setOpen(false)} />}
      </Dialog>
    </>
  );
}

/** Signed in by a link: asking works, but nothing can be signed. */
function Handed() {
  const { wallet, signOut } = useSession();
  return (
    <div className="mb-4 flex flex-col gap-3">
      <Notice kind="info" title="You are signed in by a link">
        You ask as <span className="font-mono break-all">{wallet}</span>, and it pays. What has to be signed, such as a
        deposit, needs a wallet of your own.
      </Notice>
      <Button kind="quiet" onClick={() => void signOut()}>Sign out</Button>
    </div>
  );
}

function Choose() {
  const connectors = useConnectors();
  const { mutate: connect, error, isPending } = useConnect();
  const found = connectors.filter((one) => one.id !== "injected");
  const shown = found.length > 0 ? found : connectors;
  const isThere = found.length > 0 || (typeof window !== "undefined" && "ethereum" in window);
  if (!isThere) {
    return (
      <Notice kind="info" title="No wallet was found in this browser">
        Install one that works with Ethereum (such as MetaMask or Rabby) and load this page again. To look around you need
        none.
      </Notice>
    );
  }
  return (
    <div className="flex flex-col gap-2">
      {shown.map((connector) => (
        <Button key={connector.uid} kind="quiet" disabled={isPending} onClick={() => connect({ connector })}>
          {connector.name}
        </Button>
      ))}
      {error !== null && <Notice kind="bad" title="It was not connected">{explain(error)}</Notice>}
    </div>
  );
}

function Connected({ onLeave }: { onLeave: () => void }) {
  const { wallet, isSignedIn, signIn, signOut } = useSession();
  const { mutate: disconnect } = useDisconnect();
  const [problem, setProblem] = useState<string>();
  async function attempt(act: () => Promise<void>) {
    setProblem(undefined);
    try {
      await act();
    } catch (error) {
      setProblem(explain(error));
    }
  }
  return (
    <div className="flex flex-col gap-3">
      <p className="font-mono text-sm break-all">{wallet}</p>
      <p className="text-sm text-soft">{isSignedIn ? "Signed in." : "Not signed in: signing a message costs nothing."}</p>
      {problem !== undefined && <Notice kind="bad" title="That did not work">{problem}</Notice>}
      {isSignedIn ? (
        <Button kind="quiet" onClick={() => attempt(signOut)}>Sign out</Button>
      ) : (
        <Button onClick={() => attempt(signIn)}>Sign in</Button>
      )}
      <Button
        kind="quiet"
        onClick={() =>
          attempt(async () => {
            if (isSignedIn) await signOut();
            disconnect({});
            onLeave();
          })
        }
      >
        Disconnect
      </Button>
    </div>
  );
}
