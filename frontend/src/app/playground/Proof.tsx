"use client";

import { useQuery, useQueryClient } from "@tanstack/react-query";
import type { Model } from "farlabs";
import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { ErrorState } from "@/components/ui/ErrorState";
import { Notice } from "@/components/ui/Notice";
import { Loading } from "@/components/ui/Skeleton";
import { explain } from "@/lib/explain";
import { useSession } from "@/lib/session";
import { saveFile } from "@/lib/saveFile";
import { type Check, checksOf, receiptsFile } from "./proof";

/** The receipts of an answer: as a file, and checked in this browser. */
export function Proof({ requestId, model }: { requestId: string; model: Model | undefined }) {
  const { client } = useSession();
  const queries = useQueryClient();
  const [isAsked, setAsked] = useState(false);
  const [problem, setProblem] = useState<string>();
  // Not from this browser's memory: what is checked or kept is what the gateway says now.
  const receipts = () => queries.fetchQuery({ queryKey: ["receipts", requestId], queryFn: () => client.receipts(requestId), staleTime: 0 });
  const expected = model && { modelDigest: model.model_digest, blockCount: model.block_count };
  const proof = useQuery({
    queryKey: ["proof", requestId, expected],
    queryFn: async () => checksOf(await receipts(), expected),
    enabled: isAsked,
    staleTime: Infinity,
    retry: false,
  });

  async function download() {
    setProblem(undefined);
    try {
      const { name, text } = receiptsFile(await receipts());
      saveFile(name, text, "application/json");
    } catch (error) {
      setProblem(explain(error));
    }
  }
  return (
    <div className="flex flex-col gap-3">
      <h4 className="font-medium">Receipts</h4>
      <p className="text-soft">
        Each node has signed what it did. Check it here, or download it and check it elsewhere with <code>verifyReceipts</code> or{" "}
        <code>verify_receipts</code> of the package <code>farlabs</code>: it takes nobody&apos;s word.
      </p>
      <div className="flex flex-wrap gap-2">
        <Button kind="quiet" onClick={() => (isAsked ? void proof.refetch() : setAsked(true))} disabled={proof.isFetching}>Verify here</Button>
        <Button kind="quiet" onClick={download}>Download the receipts</Button>
      </div>
      {problem !== undefined && <Notice kind="bad" title="The receipts could not be had">{problem}</Notice>}
      {isAsked && proof.isPending && <Loading what="the receipts" />}
      {isAsked && proof.error !== null && <ErrorState what="The receipts" error={proof.error} onRetry={() => void proof.refetch()} />}
      {proof.data !== undefined && <Checks checks={proof.data} />}
    </div>
  );
}

function Checks({ checks }: { checks: readonly Check[] }) {
  const isGood = checks.every((check) => check.isGood);
  return (
    <div className="flex flex-col gap-3">
      <p role="status" className={`font-medium ${isGood ? "text-good" : "text-bad"}`}>
        {isGood ? "All checks passed." : "Not all checks passed: do not rely on these receipts."}
      </p>
      <ul className="flex flex-col gap-2">
        {checks.map(({ name, says, isGood: passed }) => (
          <li key={name} className="flex gap-2">
            <span aria-hidden="true" className={passed ? "text-good" : "text-bad"}>{passed ? "✓" : "✗"}</span>
            <span className="min-w-0">
              <span className="sr-only">{passed ? "Passed:" : "Failed:"}</span> {name}
              <span className="block break-words text-soft">{says}</span>
            </span>
          </li>
        ))}
      </ul>
      <p className="max-w-prose text-soft">
        {isGood && "This proves that these nodes, and nobody else, have said so, and that not a byte was changed since. "}
        It does not prove that they have computed rightly: a node that makes up numbers can sign for them too.
      </p>
    </div>
  );
}
