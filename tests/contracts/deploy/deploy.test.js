import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import { network } from "hardhat";
import { deploy, readRecord, writeRecord } from "../../../contracts/deploy/deploy.js";
import { holdersFrom, NETWORKS, ROLE_VARIABLES } from "../../../contracts/deploy/plan.js";

const addressOf = (i) => `0x${String(i + 1).repeat(40)}`;
const DEPLOYER = addressOf(8);
const ALL = Object.fromEntries(Object.values(ROLE_VARIABLES).map((variable, i) => [variable, addressOf(i)]));

describe("deploying", function () {
  let connection;
  beforeEach(async function () {
    connection = await network.create();
  });

  it("puts the contracts on a chain, with the roles and terms of the plan", async function () {
    const record = await deploy(connection, "local", ALL);
    const at = (name) => connection.ethers.getContractAt(name, record.contracts[name].address);
    const [token, escrow, staking] = [await at("FarToken"), await at("InferenceEscrow"), await at("FarStaking")];
    const { supply, feeBps, releaseCapPerDay, unbondingPeriod, vetoWindow, maxSlashBps } = NETWORKS.local;
    expect(await token.balanceOf(ALL.DEPLOY_HOLDER)).to.equal(supply);
    expect(await escrow.token()).to.equal(await token.getAddress());
    expect(await escrow.feeBps()).to.equal(feeBps);
    expect(await escrow.releaseCapPerDay()).to.equal(releaseCapPerDay);
    expect(await staking.token()).to.equal(await token.getAddress());
    expect(await staking.unbondingPeriod()).to.equal(unbondingPeriod);
    expect(await staking.vetoWindow()).to.equal(vetoWindow);
    expect(await staking.maxSlashBps()).to.equal(maxSlashBps);
    for (const contract of [escrow, staking]) {
      expect(await contract.defaultAdmin()).to.equal(ALL.DEPLOY_ADMIN);
      expect(await contract.hasRole(await contract.PAUSER_ROLE(), ALL.DEPLOY_PAUSER)).to.equal(true);
      expect(await contract.hasRole(await contract.TREASURER_ROLE(), ALL.DEPLOY_TREASURER)).to.equal(true);
      expect(await contract.hasRole(await contract.PAUSER_ROLE(), record.deployer)).to.equal(false);
    }
  });

  it("says what it did in a record that can be read back", async function () {
    const folder = await mkdtemp(join(tmpdir(), "far-deploy-"));
    try {
      const record = await deploy(connection, "local", ALL);
      const file = pathToFileURL(join(folder, "records", "local.json"));
      await writeRecord(record, file);
      expect(await readRecord(file)).to.deep.equal(record);
      expect(record.chainId).to.equal(31337);
      expect(record.fromBlock).to.equal(1);
      expect(record.contracts.FarStaking.roles).to.deep.equal({
        DEFAULT_ADMIN: ALL.DEPLOY_ADMIN,
        SLASHER_ROLE: ALL.DEPLOY_SLASHER,
        VETOER_ROLE: ALL.DEPLOY_VETOER,
        PAUSER_ROLE: ALL.DEPLOY_PAUSER,
        TREASURER_ROLE: ALL.DEPLOY_TREASURER,
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("gives every role to the deployer on a local chain, where none is named", async function () {
    const { deployer, contracts } = await deploy(connection, "local", {});
    expect(Object.values(contracts.InferenceEscrow.roles)).to.deep.equal(Array(4).fill(deployer));
  });

  it("refuses a network without a plan, and one that is another chain", async function () {
    await expect(deploy(connection, "mainnet", ALL)).to.be.rejectedWith("no plan for mainnet");
    await expect(deploy(connection, "bsc", ALL)).to.be.rejectedWith("should have chain id 56, and says 31337");
    expect(await connection.ethers.provider.getBlockNumber()).to.equal(0);
  });
});

describe("holders of roles on a public network", function () {
  const holders = (changes) => holdersFrom({ ...ALL, ...changes }, NETWORKS.bsc, DEPLOYER);

  it("are those that were named", function () {
    const named = holders({});
    for (const [role, variable] of Object.entries(ROLE_VARIABLES)) expect(named[role]).to.equal(ALL[variable]);
  });

  it("must all be named", function () {
    for (const variable of Object.values(ROLE_VARIABLES)) {
      expect(() => holders({ [variable]: undefined })).to.throw(`${variable} is not set`);
      expect(() => holders({ [variable]: "" })).to.throw(`${variable} is not set`);
    }
  });

  it("must be addresses that somebody can use", function () {
    expect(() => holders({ DEPLOY_ADMIN: "0x1234" })).to.throw("DEPLOY_ADMIN is not an address");
    const wrongChecksum = "0xD8dA6BF26964aF9D7eEd9e03E53415D37aA96045";
    expect(() => holders({ DEPLOY_ADMIN: wrongChecksum })).to.throw("good checksum");
    expect(() => holders({ DEPLOY_ADMIN: `0x${"0".repeat(40)}` })).to.throw("zero address");
  });

  it("are not the key that deploys", function () {
    expect(() => holders({ DEPLOY_PAUSER: DEPLOYER })).to.throw("DEPLOY_PAUSER is the deploying key");
  });

  it("are different where one is there to stop the other", function () {
    const same = ALL.DEPLOY_SETTLER;
    expect(() => holders({ DEPLOY_ADMIN: same })).to.throw("DEPLOY_ADMIN and DEPLOY_SETTLER are the same");
    expect(() => holders({ DEPLOY_PAUSER: same })).to.throw("DEPLOY_PAUSER and DEPLOY_SETTLER are the same");
    expect(() => holders({ DEPLOY_VETOER: ALL.DEPLOY_SLASHER })).to.throw("DEPLOY_SLASHER and DEPLOY_VETOER");
  });
});
