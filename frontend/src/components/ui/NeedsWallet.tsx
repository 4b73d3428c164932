"use client";

import type { ReactNode } from "react";
import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Empty } from "@/components/ui/Empty";
import { Notice } from "@/components/ui/Notice";
import { WalletButton } from "@/components/shell/WalletButton";
import { explain } from "@/lib/explain";
import { useSession } from "@/lib/session";

/** What is only for whoever has connected a wallet and signed in; until then, how to. */
export function NeedsWallet({ what, children }: { what: string; children: ReactNode }) {
  const { wallet, isSignedIn, signIn } = useSession();
  const [problem, setProblem] = useState<string>();
  if (wallet !== undefined && isSignedIn) return children;
  return (
    <Empty title={wallet === undefined ? `Connect a wallet to see ${what}` : `Sign in to see ${what}`}>
      <p>
        {wallet === undefined
          ? "Your wallet is your account here: there is nothing to register."
          : "You sign a message with your wallet. It moves no money and costs nothing."}
      </p>
      <div className="mt-4 flex justify-center">
        {wallet === undefined ? (
          <WalletButton />
        ) : (
          <Button
            onClick={async () => {
              setProblem(undefined);
              try {
                await signIn();
              } catch (error) {
                setProblem(explain(error));
              }
            }}
          >
            Sign in
          </Button>
        )}
      </div>
      {problem !== undefined && (
        <div className="mt-4 text-left">
          <Notice kind="bad" title="You were not signed in">{problem}</Notice>
        </div>
      )}
    </Empty>
  );
}
