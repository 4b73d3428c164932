import { createRequire } from "node:module";
import toolbox from "@nomicfoundation/hardhat-toolbox-mocha-ethers";
import { configVariable, defineConfig } from "hardhat/config";

// The compiler is the npm package `solc`, pinned like everything else; it is never downloaded by Hardhat.
const require = createRequire(import.meta.url);
const compiler = {
  version: require("solc/package.json").version,
  path: require.resolve("solc/soljson.js"),
  settings: { optimizer: { enabled: true, runs: 200 }, evmVersion: "cancun" },
};

const bscNetwork = (chainId, rpcUrl) => ({
  type: "http",
  chainType: "l1",
  chainId,
  url: configVariable(rpcUrl),
  accounts: [configVariable("DEPLOYER_PRIVATE_KEY")],
});

export default defineConfig({
  plugins: [toolbox],
  // Ignition keeps the journals of deployments beside the deployment scripts.
  paths: { tests: { mocha: "tests/contracts", solidity: "tests/contracts" }, ignition: "contracts/deploy" },
  // Tests here are JavaScript; nobody would read generated types.
  typechain: { dontOverrideCompile: true },
  // One set of settings, so that what is tested is what is exported and deployed.
  solidity: { profiles: { default: compiler, production: compiler } },
  test: { solidity: { fuzz: { runs: 256 }, invariant: { runs: 32, depth: 64 } } },
  verify: { etherscan: { apiKey: configVariable("ETHERSCAN_API_KEY") } },
  networks: {
    bscTestnet: bscNetwork(97, "BSC_TESTNET_RPC_URL"),
    bsc: bscNetwork(56, "BSC_RPC_URL"),
  },
});
