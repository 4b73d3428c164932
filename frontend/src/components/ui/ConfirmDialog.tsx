"use client";

import { type ReactNode, useState } from "react";
import { explain } from "@/lib/explain";
import { Button } from "./Button";
import { Dialog } from "./Dialog";
import { Notice } from "./Notice";

interface ConfirmDialogProps {
  title: string;
  /** What happens, and that it cannot be taken back where that is so. */
  children: ReactNode;
  /** The word on the button that does it. */
  act: string;
  isOpen: boolean;
  onClose: () => void;
  onConfirm: () => Promise<void>;
}

/** Asks before something that cannot be taken back. Stays open, and says why, where it did not work. */
export function ConfirmDialog({ title, children, act, isOpen, onClose, onConfirm }: ConfirmDialogProps) {
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  async function confirm() {
    setBusy(true);
    setProblem(undefined);
    try {
      await onConfirm();
      onClose();
    } catch (error) {
      setProblem(explain(error));
    } finally {
      setBusy(false);
    }
  }
  return (
    <Dialog title={title} isOpen={isOpen} onClose={onClose}>
      <div className="flex flex-col gap-4 text-sm">
        {children}
        {problem !== undefined && <Notice kind="bad" title="That did not work">{problem}</Notice>}
        <div className="flex justify-end gap-2">
          <Button kind="quiet" onClick={onClose}>Cancel</Button>
          <Button kind="danger" onClick={confirm} disabled={isBusy}>{act}</Button>
        </div>
      </div>
    </Dialog>
  );
}
