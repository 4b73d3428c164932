"use client";

import type { ReactNode } from "react";
import { useConnection } from "wagmi";
import { Notice } from "@/components/ui/Notice";

/** What needs a wallet that sends transactions, which a handed session has none of in this browser. */
export function NeedsSender({ to, children }: { to: string; children: ReactNode }) {
  const { address } = useConnection();
  if (address !== undefined) return children;
  return (
    <Notice kind="info" title={`Connect the wallet to ${to}`}>
      You are signed in without a wallet in this browser: you can look, and send nothing.
    </Notice>
  );
}
