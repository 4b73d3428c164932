// Writes what the pages need of the contracts' interfaces into src/lib/abi, or with --check says whether that is up to
// date. Errors are all taken: a refusal is to have its name.
import { mkdir, readFile, writeFile } from "node:fs/promises";

const NEEDED = {
  InferenceEscrow: {
    name: "escrowAbi",
    functions: [
      "channelIdOf",
      "channelOf",
      "claimPayout",
      "claimedOf",
      "creditOf",
      "deposit",
      "depositOf",
      "depositWithPermit",
      "finishClose",
      "openChannel",
      "paused",
      "setSpendingAllowance",
      "spendingAllowance",
      "startClose",
      "topUp",
      "withdraw",
      "withdrawDeposit",
    ],
  },
  FarToken: { name: "tokenAbi", functions: ["allowance", "approve", "balanceOf", "eip712Domain", "nonces", "permit"] },
};
const COMPILED = new URL("../../far_mesh/marketplace/chain/abi/", import.meta.url);
const KEPT = new URL("../src/lib/abi/", import.meta.url);

function plain({ internalType, components, ...parameter }) {
  return components === undefined ? parameter : { ...parameter, components: components.map(plain) };
}

function entry({ inputs, outputs, ...rest }) {
  return { ...rest, inputs: inputs.map(plain), ...(outputs === undefined ? {} : { outputs: outputs.map(plain) }) };
}

async function written(contract, { name, functions }) {
  const { abi } = JSON.parse(await readFile(new URL(`${contract}.json`, COMPILED), "utf8"));
  const wanted = abi.filter(({ type, name }) => type === "error" || (type === "function" && functions.includes(name)));
  const missing = functions.filter((name) => !wanted.some((one) => one.name === name));
  if (missing.length > 0) throw new Error(`${contract} has no ${missing.join(", ")}`);
  const lines = wanted.map((one) => `  ${JSON.stringify(entry(one))},\n`).join("");
  return `// Made by scripts/abi.mjs from the compiled ${contract}.\n\nexport const ${name} = [\n${lines}] as const;\n`;
}

await mkdir(KEPT, { recursive: true });
for (const [contract, needed] of Object.entries(NEEDED)) {
  const file = new URL(`${needed.name}.ts`, KEPT);
  const content = await written(contract, needed);
  if ((await readFile(file, "utf8").catch(() => "")) === content) continue;
  if (process.argv.includes("--check")) {
    console.error(`differs from the contracts: frontend/src/lib/abi/${needed.name}.ts (npm run generate writes it anew)`);
    process.exitCode = 1;
  } else {
    await writeFile(file, content);
    console.log(`written: src/lib/abi/${needed.name}.ts`);
  }
}
