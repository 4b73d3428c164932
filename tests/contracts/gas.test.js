// What everything costs, in steady state: balances and credits exist already. Writes the table of docs/contracts.md
// (`npm run gas:write`), and otherwise fails when the table is not true any more.
import { readFile, writeFile } from "node:fs/promises";
import { expect } from "chai";
import hre from "hardhat";
import {
  claimOf,
  DAY,
  DEFAULT_LOCK,
  deployed,
  deployEscrow,
  ethers,
  far,
  HOUR,
  intentOf,
  loadFixture,
  NOBODY,
  payoutTree,
  requestId,
  signIntent,
  signPermit,
  time,
  UNIT,
} from "./support.js";

const DOCUMENT = new URL("../../docs/contracts.md", import.meta.url);
const TABLE = /(?<=<!-- gas, by npm run gas:write -->\n)[^]*(?=<!-- end of gas -->)/;
/** Signatures and timestamps have more or fewer zero bytes from run to run. */
const TOLERANCE = 0.01;
const NETTED_GAS_PER_INFERENCE = 200;
const LARGEST_CONTRACT = 24_576;

const addressOf = (i) => ethers.getAddress(ethers.dataSlice(ethers.id(`provider ${i}`), 12));
/** Amounts as they come: whole units, different from each other. */
const amountOf = (i) => (BigInt(ethers.id(`amount ${i}`)) % 1_000_000_000n) * UNIT;
const session = new ethers.Wallet(ethers.id("session key"));
const list = (count, make) => Array.from({ length: count }, (_, i) => make(i));
const sum = (amounts) => amounts.reduce((a, b) => a + b, 0n);

/** `total` in `count` parts, to the unit. */
const shares = (total, count) => {
  const share = (total / BigInt(count || 1) / UNIT) * UNIT;
  return list(count, (i) => (i === 0 ? total - share * BigInt(count - 1) : share));
};

/** Ten users with deposits, consents and channels; a hundred providers with credits; money in the pool. */
async function steady() {
  const context = await deployed();
  const { escrow, token, user, settler } = context;
  const wallets = (await ethers.getSigners()).slice(8, 18);
  for (const wallet of wallets) {
    await token.connect(user).approve(escrow, far(1_000));
    await escrow.connect(user).depositFor(wallet, far(100));
    await escrow.connect(wallet).setSpendingAllowance(far(100));
    await escrow.connect(wallet).openChannel(requestId("channel"), session.address, far(50), DAY);
  }
  const channels = await Promise.all(wallets.map((wallet) => escrow.channelIdOf(wallet, requestId("channel"))));
  const claims = await Promise.all(channels.map((id) => claimOf(escrow, session, id, far(20))));
  await escrow.connect(settler).redeemVouchers(claims);
  const providers = list(100, addressOf);
  const credit = [NOBODY, providers, providers.map(() => UNIT), 0n];
  await escrow.connect(settler).settleBatch(0n, requestId("warm up"), ...credit);
  await escrow.connect(user).setSpendingAllowance(far(500));
  const fee = await escrow.feeOn(far(1), 2000);
  await escrow.connect(settler).settleBatch(1n, requestId("fee"), NOBODY, [user.address], [far(1)], fee);
  return { ...context, wallets, channels, providers };
}

const gasOf = async (sending) => Number((await (await sending).wait()).gasUsed);

const create = (c, name = "gas") => c.escrow.connect(c.user).createEscrow(requestId(name), far(1));
const releaseTo = async (c, count, name = "gas") => ({
  escrowId: await c.escrow.escrowIdOf(c.user, requestId(name)),
  providers: c.providers.slice(0, count),
  amounts: list(count, (i) => amountOf(i) / 1_000n + 1n),
});
const release = async (c, count) => {
  await create(c);
  const { escrowId, providers, amounts } = await releaseTo(c, count);
  return gasOf(c.escrow.connect(c.settler).releaseMultiple(escrowId, providers, amounts));
};
const redeem = async (c, count) => {
  const claims = await Promise.all(
    c.channels.slice(0, count).map((id, i) => claimOf(c.escrow, session, id, far(20) + amountOf(i))),
  );
  return (await gasOf(c.escrow.connect(c.settler).redeemVouchers(claims))) / count;
};
const settle = async (c, users, providers) => {
  const amounts = list(providers, (i) => amountOf(i) / 10n + UNIT);
  const fee = await c.escrow.feeOn(sum(amounts), 2000);
  const charges = { users: c.wallets.slice(0, users).map((w) => w.address), amounts: shares(sum(amounts) + fee, users) };
  const args = [2n, requestId("details"), charges, c.providers.slice(0, providers), amounts, fee];
  return gasOf(c.escrow.connect(c.settler).settleBatch(...args));
};
const payouts = async (c, count) => {
  const lines = list(count, (i) => [addressOf(i), amountOf(i) / 1_000n + UNIT]);
  const tree = payoutTree(lines);
  const total = sum(lines.map(([, amount]) => amount));
  const committing = c.escrow.connect(c.settler).commitPayoutRoot(1n, tree.root, total, 0n, NOBODY);
  return { lines, tree, committing };
};
const staking = async (c) => {
  const holders = { admin: c.admin, slasher: c.settler, vetoer: c.admin, pauser: c.pauser, treasurer: c.treasurer };
  const vault = await ethers.deployContract("FarStaking", [c.token, DAY, holders, 14 * DAY, 7 * DAY, 3000]);
  for (const account of [c.user, c.other]) {
    await c.token.connect(account).approve(vault, far(1_000));
    await vault.connect(account).stake(far(100));
  }
  return vault;
};

/** What is measured, in the order of the table. Several figures of one row are numbers of providers and the like. */
const ROWS = {
  "`deposit`": [
    async (c) => {
      await c.escrow.connect(c.other).deposit(far(1));
      return gasOf(c.escrow.connect(c.other).deposit(far(1)));
    },
  ],
  "`depositWithPermit`": [
    async (c) => {
      await c.escrow.connect(c.other).deposit(far(1));
      const permit = await signPermit(c.token, c.other, await c.escrow.getAddress(), far(1));
      return gasOf(c.escrow.depositWithPermit(c.other, far(1), ...permit));
    },
  ],
  "`withdrawDeposit`": [(c) => gasOf(c.escrow.connect(c.user).withdrawDeposit(far(1)))],
  "`withdraw`": [(c) => gasOf(c.escrow.connect(c.user).withdraw(c.other))],
  "`createEscrow`": [(c) => gasOf(create(c))],
  "`createEscrowWithAllowance`": [
    (c) => gasOf(c.escrow.connect(c.settler).createEscrowWithAllowance(c.user, requestId("a"), far(1), DEFAULT_LOCK)),
  ],
  "`createEscrowFor`": [
    async (c) => {
      const intent = await intentOf(c.user);
      return gasOf(c.escrow.createEscrowFor(intent, await signIntent(c.user, c.escrow, intent)));
    },
  ],
  "`releaseMultiple` to 1 / 10 / 100 providers": [1, 10, 100].map((count) => (c) => release(c, count)),
  "`releaseBatch`, ten escrows of the same ten providers, each": [
    async (c) => {
      const names = list(10, (i) => `gas ${i}`);
      for (const name of names) await create(c, name);
      const releases = await Promise.all(names.map((name) => releaseTo(c, 10, name)));
      return (await gasOf(c.escrow.connect(c.settler).releaseBatch(releases))) / 10;
    },
  ],
  "`cancel` by a settler": [
    async (c) => {
      await create(c);
      return gasOf(c.escrow.connect(c.settler).cancel(await c.escrow.escrowIdOf(c.user, requestId("gas"))));
    },
  ],
  "`openChannel`": [
    (c) => gasOf(c.escrow.connect(c.user).openChannel(requestId("new"), session.address, far(10), HOUR)),
  ],
  "`topUp`": [(c) => gasOf(c.escrow.connect(c.wallets[0]).topUp(c.channels[0], far(1)))],
  "`redeemVouchers`, 1 / 10 channels, each": [1, 10].map((count) => (c) => redeem(c, count)),
  "`startClose`": [(c) => gasOf(c.escrow.connect(c.wallets[0]).startClose(c.channels[0]))],
  "`finishClose`": [
    async (c) => {
      await c.escrow.connect(c.wallets[0]).startClose(c.channels[0]);
      await time.increase(DAY + 1);
      return gasOf(c.escrow.finishClose(c.channels[0]));
    },
  ],
  "`settleBatch` from the pool to 1 / 10 / 100 providers": [1, 10, 100].map((count) => (c) => settle(c, 0, count)),
  "`settleBatch`, 10 users × 10 providers": [(c) => settle(c, 10, 10)],
  "the same from the pool / from 10 users, for each of 1,000 inferences": [0, 10].map(
    (users) => async (c) => (await settle(c, users, 10)) / 1_000,
  ),
  "`commitPayoutRoot`": [async (c) => gasOf((await payouts(c, 1_000)).committing)],
  "`claimPayout`, one of 1,000 providers": [
    async (c) => {
      const { lines, tree, committing } = await payouts(c, 1_000);
      await committing;
      await time.increase(DAY);
      return gasOf(c.escrow.claimPayout(1n, ...lines[7], tree.proofOf(7)));
    },
  ],
  "`stake`": [async (c) => gasOf((await staking(c)).connect(c.user).stake(far(1)))],
  "`requestUnstake`, the first": [async (c) => gasOf((await staking(c)).connect(c.user).requestUnstake(far(1)))],
  "`proposeSlash`": [
    async (c) => gasOf((await staking(c)).connect(c.settler).proposeSlash(c.user, far(1), requestId("evidence"))),
  ],
  "deployment, token / escrow / staking": [
    (c) => gasOf(Promise.resolve(c.token.deploymentTransaction())),
    async (c) => gasOf(Promise.resolve((await deployEscrow(c.token, c)).deploymentTransaction())),
    async (c) => gasOf(Promise.resolve((await staking(c)).deploymentTransaction())),
  ],
};

async function measured() {
  const rows = {};
  for (const [what, measures] of Object.entries(ROWS)) {
    rows[what] = [];
    for (const measure of measures) rows[what].push(Math.round(await measure(await loadFixture(steady))));
  }
  return rows;
}

const rendered = (rows) => {
  const lines = Object.entries(rows).map(
    ([what, figures]) => `| ${what} | ${figures.map((gas) => gas.toLocaleString("en")).join(" / ")} |`,
  );
  return ["| | gas |", "|---|---|", ...lines, ""].join("\n");
};

const parsed = (table) =>
  Object.fromEntries(
    table
      .split("\n")
      .slice(2, -1)
      .map((line) => line.split("|").map((cell) => cell.trim()))
      .map(([, what, figures]) => [what, figures.split(" / ").map((gas) => Number(gas.replaceAll(",", "")))]),
  );

// Instrumented code costs more, so coverage leaves this out.
(hre.globalOptions.coverage ? describe.skip : describe)("gas in steady state", function () {
  this.timeout(60_000);
  let rows;

  before(async function () {
    rows = await measured();
    if (process.env.WRITE_GAS) {
      const document = await readFile(DOCUMENT, "utf8");
      await writeFile(DOCUMENT, document.replace(TABLE, () => rendered(rows)));
    }
  });

  it("is what docs/contracts.md says", async function () {
    const documented = parsed((await readFile(DOCUMENT, "utf8")).match(TABLE)[0]);
    expect(Object.keys(documented), "rows; npm run gas:write writes them anew").to.deep.equal(Object.keys(rows));
    for (const [what, figures] of Object.entries(rows)) {
      figures.forEach((gas, i) => {
        const message = `${what}; npm run gas:write writes the table anew`;
        expect(Math.abs(documented[what][i] - gas), message).to.be.at.most(gas * TOLERANCE);
      });
    }
  });

  it(`is at most ${NETTED_GAS_PER_INFERENCE} per inference for a batch of 1,000 of them by ten providers`, function () {
    const [, toTen] = rows["`settleBatch` from the pool to 1 / 10 / 100 providers"];
    expect(toTen / 1_000).to.be.at.most(NETTED_GAS_PER_INFERENCE);
  });

  it("leaves every contract small enough to be deployed (EIP-170)", async function () {
    for (const name of ["FarToken", "InferenceEscrow", "FarStaking"]) {
      const { deployedBytecode } = await hre.artifacts.readArtifact(name);
      expect(ethers.dataLength(deployedBytecode), name).to.be.at.most(LARGEST_CONTRACT);
    }
  });
});
