/** The TypeScript in the documents is right, and they say of errors what the code says. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import * as sdk from "../src/index.js";

const FOLDER = fileURLToPath(new URL("../", import.meta.url));
const PAGES = ["README.md", "../../docs/sdk.md"];
const SOURCES = ts.sys.readDirectory(`${FOLDER}src`, [".ts"], ["generated"]).map((path) => readFileSync(path, "utf8"));

function page(name: string): string {
  return readFileSync(FOLDER + name, "utf8");
}

/** What the compiler says of programs that lie in the package's folder. */
function complaints(programs: Map<string, string>): string[] {
  const { config } = ts.readConfigFile(`${FOLDER}tsconfig.json`, (path) => ts.sys.readFile(path)) as { config: object };
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, FOLDER);
  const host = ts.createCompilerHost(options);
  const { readFile, fileExists } = host;
  host.readFile = (path) => programs.get(path) ?? readFile(path);
  host.fileExists = (path) => programs.has(path) || fileExists(path);
  const program = ts.createProgram([...programs.keys()], { ...options, noEmit: true }, host);
  return ts.getPreEmitDiagnostics(program).map((one) => {
    return `${one.file?.fileName.slice(FOLDER.length)}: ${ts.flattenDiagnosticMessageText(one.messageText, "\n")}`;
  });
}

describe("the documents", () => {
  it("have programs that compile", () => {
    const programs = new Map<string, string>();
    for (const name of PAGES) {
      const found = [...page(name).matchAll(/^```ts\n(.*?)^```$/gms)];
      expect(found, name).not.toHaveLength(0);
      for (const [index, [, text]] of found.entries()) {
        programs.set(`${FOLDER}${name.replace(/\W/g, "-")}-${index}.ts`, text ?? "");
      }
    }
    programs.set(`${FOLDER}wrong.ts`, 'import { nothing } from "farlabs"; nothing();');
    const found = complaints(programs);
    expect(found.filter((one) => !one.startsWith("wrong.ts"))).toEqual([]);
    expect(found).not.toEqual([]);
  });

  it("name all codes of the SDK's own, and classes", () => {
    const text = page("../../docs/sdk.md");
    const table = text.slice(text.indexOf("| class |"), text.indexOf("Redirects are not followed"));
    const codes = SOURCES.flatMap((source) => [...source.matchAll(/(?:code: |refused\()"(\w+)"/g)].map(([, code]) => code));
    expect(codes.length).toBeGreaterThan(20);
    for (const code of codes) expect(table).toContain(`\`${code}\``);
    for (const name of Object.keys(sdk).filter((name) => name.endsWith("Error"))) expect(table).toContain(`\`${name}\``);
  });

  it("name all methods of the client", () => {
    const text = page("../../docs/sdk.md");
    const client = new sdk.FarLabsClient({ url: "http://localhost" });
    const methods = Object.getOwnPropertyNames(client).filter((name) => name !== "transport");
    for (const name of [...methods, "signIn"]) expect(text).toContain(`\`${name}\``);
  });
});
