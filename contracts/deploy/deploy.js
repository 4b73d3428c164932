// Deploys to a connection, asks the chain who holds which role, and says so in a record.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import FarMesh from "./FarMesh.js";
import { holdersFrom, NETWORKS } from "./plan.js";

const RECORDS = new URL("./records/", import.meta.url);

export const recordOf = (networkName) => new URL(`${networkName}.json`, RECORDS);

/**
 * Deploys token, escrow and staking as the plan of `networkName` says.
 * @returns the record: addresses, terms, and the roles as the chain tells them
 * @throws Error the network is not in the plan, is another chain, or a role has no proper holder; nothing is sent then
 */
export async function deploy(connection, networkName, environment) {
  const plan = NETWORKS[networkName];
  if (!plan) throw new Error(`no plan for ${networkName}; there are ${Object.keys(NETWORKS).join(", ")}`);
  const { ethers, ignition } = connection;
  const { chainId } = await ethers.provider.getNetwork();
  if (plan.chainId && BigInt(plan.chainId) !== chainId) {
    throw new Error(`${networkName} should have chain id ${plan.chainId}, and says ${chainId}`);
  }
  const [deployer] = await ethers.getSigners();
  const { chainId: _planned, isPublic, ...terms } = plan;
  const holders = holdersFrom(environment, { isPublic }, deployer.address);
  const block = await ethers.provider.getBlockNumber();
  const contracts = await ignition.deploy(FarMesh, { parameters: { FarMesh: { ...terms, ...holders } } });
  const record = {
    network: networkName,
    chainId: Number(chainId),
    fromBlock: block + 1,
    deployer: deployer.address,
    contracts: {
      FarToken: { address: await contracts.token.getAddress(), holder: holders.holder },
      InferenceEscrow: await described(contracts.escrow, holders, ["SETTLER", "PAUSER", "TREASURER"]),
      FarStaking: await described(contracts.staking, holders, ["SLASHER", "VETOER", "PAUSER", "TREASURER"]),
    },
    terms: Object.fromEntries(Object.entries(terms).map(([name, value]) => [name, String(value)])),
  };
  return record;
}

async function described(contract, holders, names) {
  const roles = { DEFAULT_ADMIN: await contract.defaultAdmin() };
  for (const name of names) {
    const holder = holders[name.toLowerCase()];
    const role = await contract[`${name}_ROLE`]();
    if (!(await contract.hasRole(role, holder))) throw new Error(`${holder} does not hold ${name}_ROLE`);
    roles[`${name}_ROLE`] = holder;
  }
  return { address: await contract.getAddress(), roles };
}

export async function writeRecord(record, file = recordOf(record.network)) {
  await mkdir(fileURLToPath(new URL(".", file)), { recursive: true });
  await writeFile(file, `${JSON.stringify(record, null, 2)}\n`);
}

export const readRecord = async (file) => JSON.parse(await readFile(file, "utf8"));
