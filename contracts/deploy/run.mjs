// npx hardhat run contracts/deploy/run.mjs --network bscTestnet
import { fileURLToPath } from "node:url";
import { network } from "hardhat";
import { deploy, recordOf, writeRecord } from "./deploy.js";

const connection = await network.create();
const isDryRun = connection.networkConfig.type === "edr-simulated";
const record = await deploy(connection, isDryRun ? "local" : connection.networkName, process.env);
console.log(JSON.stringify(record, null, 2));
if (!isDryRun) {
  await writeRecord(record);
  console.log(`written: ${fileURLToPath(recordOf(record.network))}`);
}
