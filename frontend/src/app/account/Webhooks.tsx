"use client";

import type { WebhookSecret } from "farlabs";
import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Card } from "@/components/ui/Card";
import { Dialog } from "@/components/ui/Dialog";
import { Notice } from "@/components/ui/Notice";
import { explain } from "@/lib/explain";
import { when } from "@/lib/format";
import { useSession } from "@/lib/session";
import { ShownOnce } from "./ShownOnce";

/** The secret by which messages to webhooks are known to be the marketplace's. */
export function Webhooks() {
  const [isOpen, setOpen] = useState(false);
  return (
    <Card title="Webhooks">
      <p className="mb-4 max-w-prose text-sm text-soft">
        A job can call an address of yours when it is done. The message is signed with a secret, by which your program knows
        that it is not somebody else&apos;s.
      </p>
      <Button kind="quiet" onClick={() => setOpen(true)}>Make a new secret</Button>
      <Dialog title="The secret of your webhooks" isOpen={isOpen} onClose={() => setOpen(false)}>
        <Make onClose={() => setOpen(false)} />
      </Dialog>
    </Card>
  );
}

function Make({ onClose }: { onClose: () => void }) {
  const { client } = useSession();
  const [made, setMade] = useState<WebhookSecret>();
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  async function make() {
    setBusy(true);
    setProblem(undefined);
    try {
      setMade(await client.webhookSecret());
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  }
  if (made !== undefined) {
    return (
      <div className="flex flex-col gap-4 text-sm">
        <ShownOnce secret={made.secret} what="the secret" />
        {made.previous_until !== null && <p>Until {when(made.previous_until)} messages are signed with the one before it as well.</p>}
        <div className="flex justify-end"><Button onClick={onClose}>I have it</Button></div>
      </div>
    );
  }
  return (
    <div className="flex flex-col gap-4 text-sm">
      <p>A new secret takes the place of the one before, with which messages are signed as well for one more day. Two in a day: the first counts no more.</p>
      {problem !== undefined && <Notice kind="bad" title="No secret was made">{problem}</Notice>}
      <div className="flex justify-end gap-2">
        <Button kind="quiet" onClick={onClose}>Cancel</Button>
        <Button onClick={() => void make()} disabled={isBusy}>Make it</Button>
      </div>
    </div>
  );
}
