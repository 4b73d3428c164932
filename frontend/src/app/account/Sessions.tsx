"use client";

import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { ConfirmDialog } from "@/components/ui/ConfirmDialog";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { when } from "@/lib/format";
import { useSession } from "@/lib/session";

/** Where one is signed in, as far as that is known: a gateway keeps no list of tokens. */
export function Sessions() {
  const { client, wallet, signOut } = useSession();
  const [isAsking, setAsking] = useState(false);
  const [withKeys, setWithKeys] = useState(false);
  const [problem, setProblem] = useState<string>();
  const until = client.session?.expiresAt;
  async function leave() {
    setProblem(undefined);
    try {
      await signOut();
    } catch (error) {
      setProblem(explain(error));
    }
  }
  return (
    <Card title="Sessions">
      <dl className="mb-4 flex flex-col gap-2 text-sm">
        <div>
          <dt className="text-soft">Signed in as</dt>
          <dd className="font-mono break-all">{wallet}</dd>
        </div>
        <div>
          <dt className="text-soft">In this tab until</dt>
          <dd>{until === undefined ? "–" : <time dateTime={until}>{when(until)}</time>}</dd>
        </div>
      </dl>
      <div className="flex flex-wrap gap-2">
        <Button kind="quiet" onClick={() => void leave()}>Sign out</Button>
        <Button kind="danger" onClick={() => setAsking(true)}>Sign out everywhere</Button>
      </div>
      {problem !== undefined && <div className="mt-4"><Notice kind="bad" title="You were not signed out">{problem}</Notice></div>}
      <ConfirmDialog
        title="Sign out everywhere?"
        act="Sign out everywhere"
        isOpen={isAsking}
        onClose={() => setAsking(false)}
        onConfirm={() => client.signOut({ everywhere: true, revokeKeys: withKeys })}
      >
        <p>Each session of this wallet ends, in whatever browser or program it is. Signing in anew is a signature.</p>
        <label className="flex items-start gap-2">
          <input type="checkbox" className="mt-0.5 size-4 accent-brand" checked={withKeys} onChange={(event) => setWithKeys(event.target.checked)} />
          <span>
            Revoke all API keys as well
            <span className="block text-xs text-soft">Programs that use them are refused from now on.</span>
          </span>
        </label>
      </ConfirmDialog>
    </Card>
  );
}
