import type { Metadata } from "next";
import { ButtonLink } from "@/components/ui/ButtonLink";
import { PageHeader } from "@/components/ui/PageHeader";

export const metadata: Metadata = { title: "Not found" };

export default function NotFound() {
  return (
    <>
      <PageHeader title="There is no such page">
        The address may have been mistyped, or what was there has been moved. Nothing of yours is lost.
      </PageHeader>
      <div className="flex flex-wrap gap-3">
        <ButtonLink href="/">To the network</ButtonLink>
        <ButtonLink href="/playground" kind="quiet">To the playground</ButtonLink>
      </div>
    </>
  );
}
