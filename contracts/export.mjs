// Writes the compiled contracts to where the marketplace reads them, or with --check says whether that is up to date.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { fileURLToPath } from "node:url";
import hre from "hardhat";

const CONTRACTS = ["FarToken", "InferenceEscrow", "FarStaking"];
const ROOT = new URL("../", import.meta.url);

async function exported(contractName) {
  const { abi, bytecode, buildInfoId } = await hre.artifacts.readArtifact(contractName);
  const buildInfoPath = await hre.artifacts.getBuildInfoPath(buildInfoId);
  const { solcVersion, input } = JSON.parse(await readFile(buildInfoPath, "utf8"));
  const { optimizer, evmVersion } = input.settings;
  const compiler = { version: solcVersion, settings: { optimizer, evmVersion } };
  return `${JSON.stringify({ contractName, abi, bytecode, compiler }, null, 2)}\n`;
}

async function isCurrent(file, content) {
  const present = await readFile(file, "utf8").catch(() => "");
  return present === content;
}

async function write(file, content) {
  await mkdir(dirname(fileURLToPath(file)), { recursive: true });
  await writeFile(file, content);
}

const checkOnly = process.argv.includes("--check");
for (const contractName of CONTRACTS) {
  const file = new URL(`far_mesh/marketplace/chain/abi/${contractName}.json`, ROOT);
  const path = relative(fileURLToPath(ROOT), fileURLToPath(file));
  const content = await exported(contractName);
  if (await isCurrent(file, content)) {
    console.log(`up to date: ${path}`);
  } else if (checkOnly) {
    console.error(`differs from the contracts: ${path} (npm run export writes it anew)`);
    process.exitCode = 1;
  } else {
    await write(file, content);
    console.log(`written: ${path}`);
  }
}
