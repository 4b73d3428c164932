"use client";

import { type ReactNode, useEffect, useId, useRef } from "react";

interface DialogProps {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  /** On a phone it comes up from below, as wide as the screen. */
  isSheet?: boolean;
  children: ReactNode;
}

const SHEET = "max-sm:mb-0 max-sm:w-full max-sm:max-w-full max-sm:rounded-b-none";

/** The browser's own modal dialog: it keeps the focus, and Escape closes it. */
export function Dialog({ title, isOpen, onClose, isSheet = false, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    if (isOpen) dialog.current?.showModal();
    else dialog.current?.close();
  }, [isOpen]);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={heading}
      onClose={onClose}
      onClick={(event) => event.target === dialog.current && onClose()}
      className={`m-auto w-[min(28rem,calc(100vw-2rem))] rounded-xl border border-line bg-surface p-0 text-ink backdrop:bg-black/60 ${isSheet ? SHEET : ""}`}
    >
      {isOpen && (
        <div className="p-5">
          <div className="mb-4 flex items-center justify-between gap-4">
            <h2 id={heading} className="text-lg font-semibold">{title}</h2>
            <button type="button" onClick={onClose} aria-label="Close" className="grid size-9 place-items-center rounded-md hover:bg-raised">
              ✕
            </button>
          </div>
          {children}
        </div>
      )}
    </dialog>
  );
}
