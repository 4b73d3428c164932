/** What an application carries that uses one thing of all. */

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { describe, expect, it } from "vitest";

const SOURCE = fileURLToPath(new URL("../src/", import.meta.url));

/** The code of a program of one line, as it goes over the wire. */
async function bundled(program: string): Promise<{ code: string; bytes: number }> {
  const entry = "\0program";
  const made = await build({
    configFile: false,
    logLevel: "silent",
    plugins: [
      {
        name: "program",
        resolveId: (id) => (id === entry ? entry : id === "farlabs" ? { id: `${SOURCE}index.ts`, moduleSideEffects: false } : null),
        load: (id) => (id === entry ? program : null),
      },
    ],
    build: { write: false, minify: true, target: "es2022", rolldownOptions: { input: entry, preserveEntrySignatures: "strict" } },
  });
  const outputs = (Array.isArray(made) ? made : [made]).flatMap((one) => ("output" in one ? one.output : []));
  const code = outputs.map((one) => (one.type === "chunk" ? one.code : "")).join("");
  return { code, bytes: gzipSync(code).length };
}

describe("bundled", () => {
  it("one action takes less than 6 kB, and brings none of the others", async () => {
    const { code, bytes } = await bundled('export { models, createTransport } from "farlabs"');
    expect(bytes).toBeLessThan(6_000);
    expect(code).toContain("/api/inference/models");
    expect(code).not.toMatch(/\/api\/operator|Ed25519|whsec_|Voucher\(|NodeClaim/);
  });

  it("the whole client takes less than 12 kB", async () => {
    const { bytes } = await bundled('export { FarLabsClient } from "farlabs"');
    expect(bytes).toBeLessThan(12_000);
  });

  it("what is not used is not there at all", async () => {
    expect((await bundled('import "farlabs"')).code.trim()).toBe("");
  });
});
