import { CodeBlock } from "@/components/ui/CopyButton";
import { Notice } from "@/components/ui/Notice";

/** A secret that nobody can show again. It is nowhere but in this page, and goes with it. */
export function ShownOnce({ secret, what }: { secret: string; what: string }) {
  return (
    <div className="flex flex-col gap-3">
      <Notice kind="warn" title="This is shown once">Copy it now and keep it where others cannot read it. The marketplace keeps no copy.</Notice>
      <CodeBlock code={secret} what={what} />
    </div>
  );
}
