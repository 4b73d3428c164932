import { expect } from "chai";
import { shouldBeOnlyFor, shouldStopWhilePaused, shouldWorkWhilePaused } from "./access.behavior.js";
import { DAY, ethers, far, loadFixture, namedSigners, now, time } from "./support.js";

const { MaxUint256, ZeroAddress, ZeroHash } = ethers;
const UNBONDING = 14 * DAY;
const VETO = 7 * DAY;
const CAP_BPS = 3000;
const Status = { None: 0n, Proposed: 1n, Vetoed: 2n, Executed: 3n };
const EVIDENCE = ethers.id("receipts and their audit");

async function deployStaking(token, roles, changes = {}) {
  const { adminDelay = DAY, unbonding = UNBONDING, veto = VETO, capBps = CAP_BPS } = changes;
  const { admin, slasher, vetoer, pauser, treasurer } = roles;
  const holders = { admin, slasher, vetoer, pauser, treasurer };
  return ethers.deployContract("FarStaking", [token, adminDelay, holders, unbonding, veto, capBps]);
}

/** A provider with a stake of 100 FAR, and another with 50. */
async function deployed() {
  const { settler, user, other, ...rest } = await namedSigners();
  const signers = { ...rest, slasher: settler, vetoer: other, provider: user, neighbour: rest.providers[0] };
  const token = await ethers.deployContract("FarToken", [signers.deployer, far(1_000_000)]);
  const staking = await deployStaking(token, signers);
  for (const [account, amount] of [
    [signers.provider, far(100)],
    [signers.neighbour, far(50)],
  ]) {
    await token.transfer(account, far(1_000));
    await token.connect(account).approve(staking, far(1_000));
    await staking.connect(account).stake(amount);
  }
  return { token, staking, subject: staking, ...signers };
}

/** With a proposal to take 30 FAR of the provider's stake. */
async function withProposal() {
  const context = await deployed();
  const { staking, slasher, provider } = context;
  await staking.connect(slasher).proposeSlash(provider, far(30), EVIDENCE);
  const id = await staking.slashIdOf(provider, EVIDENCE);
  const { executableAt, expiresAt } = await staking.slashOf(id);
  return { ...context, id, executableAt, expiresAt };
}

describe("FarStaking", function () {
  let context, staking, token, provider, neighbour, slasher, vetoer, pauser, treasurer, stranger, admin, id;
  const getContext = () => context;

  function startFrom(fixture) {
    beforeEach(async function () {
      context = await loadFixture(fixture);
      ({ staking, token, provider, neighbour, slasher, vetoer, pauser, treasurer, stranger, admin, id } = context);
    });
  }

  const refused = (call, error, ...args) =>
    expect(call)
      .to.be.revertedWithCustomError(staking, error)
      .withArgs(...args);
  const stakeOf = async (account) => {
    const { active, unbonding } = await staking.stakeOf(account);
    return [active, unbonding];
  };
  const propose = (c, amount = far(30), evidence = EVIDENCE, signer = c.slasher) =>
    c.staking.connect(signer).proposeSlash(c.provider, amount, evidence);
  const finish = (c, signer = c.provider) => c.staking.connect(signer).finishUnstake(signer);

  describe("deployment", function () {
    startFrom(deployed);

    it("gives each role to its one holder", async function () {
      expect(await staking.defaultAdmin()).to.equal(admin.address);
      expect(await staking.defaultAdminDelay()).to.equal(DAY);
      const roles = { SLASHER_ROLE: slasher, VETOER_ROLE: vetoer, PAUSER_ROLE: pauser, TREASURER_ROLE: treasurer };
      for (const [role, holder] of Object.entries(roles)) {
        expect(await staking[role]()).to.equal(ethers.id(role));
        expect(await staking.hasRole(ethers.id(role), holder)).to.equal(true);
        expect(await staking.hasRole(ethers.id(role), admin)).to.equal(false);
      }
    });

    it("fixes the token and its terms", async function () {
      expect(await staking.token()).to.equal(await token.getAddress());
      expect(await staking.unbondingPeriod()).to.equal(UNBONDING);
      expect(await staking.vetoWindow()).to.equal(VETO);
      expect(await staking.maxSlashBps()).to.equal(CAP_BPS);
    });

    it("refuses an empty token or role", async function () {
      const nobody = { address: ZeroAddress };
      await refused(deployStaking(ZeroAddress, context), "StakingInvalidAddress", ZeroAddress);
      for (const role of ["slasher", "vetoer", "pauser", "treasurer"]) {
        const roles = { ...context, [role]: nobody.address };
        await refused(deployStaking(token, roles), "StakingInvalidAddress", ZeroAddress);
      }
      const noAdmin = { ...context, admin: ZeroAddress };
      await refused(deployStaking(token, noAdmin), "AccessControlInvalidDefaultAdmin", ZeroAddress);
    });

    it("needs an unbonding period longer than the veto window, and neither absurd", async function () {
      for (const [unbonding, veto] of [
        [VETO, VETO],
        [VETO - 1, VETO],
        [UNBONDING, DAY - 1],
        [90 * DAY + 1, VETO],
      ]) {
        await refused(deployStaking(token, context, { unbonding, veto }), "StakingPeriodsOutOfRange", unbonding, veto);
      }
      await deployStaking(token, context, { unbonding: 90 * DAY, veto: DAY });
    });

    it("needs a cap of more than nothing and at most everything", async function () {
      for (const capBps of [0, 10_001]) {
        await refused(deployStaking(token, context, { capBps }), "StakingSlashCapOutOfRange", capBps);
      }
      await deployStaking(token, context, { capBps: 10_000 });
    });
  });

  describe("stake", function () {
    startFrom(deployed);

    const stake = (c, amount = far(1)) => c.staking.connect(c.provider).stake(amount);

    it("books what arrives", async function () {
      await expect(stake(context, far(5)))
        .to.emit(staking, "Staked")
        .withArgs(provider, far(5));
      expect(await stakeOf(provider)).to.deep.equal([far(105), 0n]);
      expect(await staking.totalStaked()).to.equal(far(155));
      expect(await token.balanceOf(staking)).to.equal(far(155));
    });

    it("books a token that takes a fee at what arrived, and refuses one of which nothing arrives", async function () {
      for (const [feeBps, received] of [
        [100, far("0.99")],
        [10_000, 0n],
      ]) {
        const taxed = await ethers.deployContract("FeeOnTransferToken", [provider, feeBps]);
        const vault = await deployStaking(taxed, context);
        await taxed.connect(provider).approve(vault, MaxUint256);
        const staked = vault.connect(provider).stake(far(1));
        if (received) await expect(staked).to.emit(vault, "Staked").withArgs(provider, received);
        else await refused(staked, "StakingZeroAmount");
      }
    });

    it("believes no token that says false", async function () {
      const liar = await ethers.deployContract("FalseReturningToken", [provider]);
      const vault = await deployStaking(liar, context);
      await liar.connect(provider).approve(vault, MaxUint256);
      await liar.refuse(true);
      await refused(vault.connect(provider).stake(1n), "SafeERC20FailedOperation", liar);
    });

    it("refuses nothing", async function () {
      await refused(stake(context, 0n), "StakingZeroAmount");
    });

    shouldStopWhilePaused((c) => stake(c), getContext);
  });

  describe("unstaking", function () {
    startFrom(deployed);

    const request = (c, amount = far(40)) => c.staking.connect(c.provider).requestUnstake(amount);

    it("takes the unbonding period", async function () {
      const requesting = await request(context);
      const readyAt = (await now()) + UNBONDING;
      await expect(requesting).to.emit(staking, "UnstakeRequested").withArgs(provider, far(40), readyAt);
      expect(await stakeOf(provider)).to.deep.equal([far(60), far(40)]);
      await time.setNextBlockTimestamp(readyAt - 1);
      await refused(finish(context), "StakingNotReady", provider, readyAt);
      await time.setNextBlockTimestamp(readyAt);
      const finishing = await finish(context);
      await expect(finishing).to.emit(staking, "Unstaked").withArgs(provider, provider, far(40));
      await expect(finishing).to.changeTokenBalances(ethers, token, [staking, provider], [-far(40), far(40)]);
      expect(await stakeOf(provider)).to.deep.equal([far(60), 0n]);
      expect(await staking.totalStaked()).to.equal(far(110));
    });

    it("starts its one clock again with every request", async function () {
      await request(context, far(10));
      await time.increase(UNBONDING - 10);
      await request(context, far(20));
      await time.increase(20);
      const { readyAt } = await staking.stakeOf(provider);
      await refused(finish(context), "StakingNotReady", provider, readyAt);
      await time.increaseTo(readyAt);
      await finish(context);
      expect(await stakeOf(provider)).to.deep.equal([far(70), 0n]);
    });

    it("sends the tokens to where the provider says, but not to where they are lost", async function () {
      await request(context);
      await time.increase(UNBONDING);
      for (const nowhere of [ZeroAddress, await staking.getAddress()]) {
        await refused(staking.connect(provider).finishUnstake(nowhere), "StakingInvalidAddress", nowhere);
      }
      await staking.connect(provider).finishUnstake(stranger);
      expect(await token.balanceOf(stranger)).to.equal(far(40));
    });

    it("gives out what was staked, once, and nothing to others", async function () {
      await refused(request(context, 0n), "StakingZeroAmount");
      await refused(request(context, far(100) + 1n), "StakingInsufficientStake", provider, far(100), far(100) + 1n);
      await refused(finish(context), "StakingNothingUnbonding", provider);
      await request(context, far(100));
      await time.increase(UNBONDING);
      await refused(finish(context, stranger), "StakingNothingUnbonding", stranger);
      await finish(context);
      await refused(finish(context), "StakingNothingUnbonding", provider);
    });

    it("is stopped by no pause", async function () {
      await staking.connect(pauser).pause();
      await request(context);
      await time.increase(UNBONDING);
      await finish(context);
    });

    it("cannot be blocked by a recipient that refuses tokens", async function () {
      const picky = await ethers.deployContract("BlockingToken", [context.deployer]);
      const vault = await deployStaking(picky, context);
      for (const account of [provider, neighbour]) {
        await picky.transfer(account, far(10));
        await picky.connect(account).approve(vault, far(10));
        await vault.connect(account).stake(far(10));
        await vault.connect(account).requestUnstake(far(10));
      }
      await time.increase(UNBONDING);
      await picky.blockRecipient(provider);
      await expect(vault.connect(provider).finishUnstake(provider)).to.be.revertedWithCustomError(picky, "Blocked");
      await vault.connect(neighbour).finishUnstake(neighbour);
      await vault.connect(provider).finishUnstake(stranger);
      expect(await picky.balanceOf(vault)).to.equal(0n);
    });
  });

  describe("proposeSlash", function () {
    startFrom(deployed);

    it("takes nothing yet", async function () {
      const proposing = await propose(context);
      const executableAt = (await now()) + VETO;
      const slashId = await staking.slashIdOf(provider, EVIDENCE);
      await expect(proposing)
        .to.emit(staking, "SlashProposed")
        .withArgs(slashId, provider, far(30), EVIDENCE, executableAt);
      expect(await staking.slashOf(slashId)).to.deep.equal([
        provider.address,
        BigInt(executableAt),
        Status.Proposed,
        far(30),
        BigInt(executableAt + 7 * DAY),
      ]);
      expect(await stakeOf(provider)).to.deep.equal([far(100), 0n]);
      expect(await staking.pendingSlashOf(provider)).to.equal(far(30));
      expect(await staking.pendingSlashOf(neighbour)).to.equal(0n);
    });

    it("asks for no more than the cap of the whole stake, unbonding included", async function () {
      await staking.connect(provider).requestUnstake(far(90));
      await refused(propose(context, far(30) + 1n), "SlashAboveCap", provider, far(30) + 1n, far(30));
      await propose(context, far(30));
    });

    it("needs an amount and evidence", async function () {
      await refused(propose(context, 0n), "StakingZeroAmount");
      await refused(propose(context, 1n, ZeroHash), "SlashEvidenceEmpty");
    });

    it("asks nothing of those who have no stake", async function () {
      await refused(staking.connect(slasher).proposeSlash(stranger, 1n, EVIDENCE), "SlashAboveCap", stranger, 1n, 0n);
    });

    it("is one at a time", async function () {
      await propose(context);
      const slashId = await staking.slashIdOf(provider, EVIDENCE);
      await refused(propose(context, 1n, ethers.id("more")), "SlashAlreadyPending", provider, slashId);
    });

    it("may follow one that was vetoed or has lapsed, with other evidence", async function () {
      await propose(context);
      const slashId = await staking.slashIdOf(provider, EVIDENCE);
      await staking.connect(vetoer).vetoSlash(slashId);
      await refused(propose(context), "SlashAlreadyProposed", slashId, Status.Vetoed);
      await propose(context, 1n, ethers.id("second"));
      await time.increase(VETO + 7 * DAY + 1);
      expect(await staking.pendingSlashOf(provider)).to.equal(0n);
      await propose(context, 1n, ethers.id("third"));
    });

    shouldBeOnlyFor("SLASHER_ROLE", "slasher", (c, signer) => propose(c, 1n, EVIDENCE, signer), getContext);
    shouldStopWhilePaused((c) => propose(c), getContext);
  });

  describe("vetoSlash", function () {
    startFrom(withProposal);

    const veto = (c, signer = c.vetoer) => c.staking.connect(signer).vetoSlash(c.id);

    it("ends a proposal for good", async function () {
      await expect(veto(context)).to.emit(staking, "SlashVetoed").withArgs(id, provider);
      expect((await staking.slashOf(id)).status).to.equal(Status.Vetoed);
      expect(await staking.pendingSlashOf(provider)).to.equal(0n);
      await time.increaseTo(context.executableAt);
      await refused(staking.connect(slasher).executeSlash(id), "SlashNotProposed", id, Status.Vetoed);
      await refused(veto(context), "SlashNotProposed", id, Status.Vetoed);
    });

    it("is possible until the slash is executed", async function () {
      await time.increaseTo(context.executableAt + 1n);
      await veto(context);
    });

    shouldBeOnlyFor("VETOER_ROLE", "vetoer", veto, getContext);
    shouldWorkWhilePaused((c) => veto(c), getContext);
  });

  describe("executeSlash", function () {
    startFrom(withProposal);

    const execute = (c, signer = c.slasher) => c.staking.connect(signer).executeSlash(c.id);
    const ripe = async (c) => {
      if (BigInt(await now()) < c.executableAt) await time.increaseTo(c.executableAt);
    };

    it("takes what was proposed, and nothing of others", async function () {
      await ripe(context);
      await expect(execute(context)).to.emit(staking, "SlashExecuted").withArgs(id, provider, far(30));
      expect(await stakeOf(provider)).to.deep.equal([far(70), 0n]);
      expect(await stakeOf(neighbour)).to.deep.equal([far(50), 0n]);
      expect(await staking.totalStaked()).to.equal(far(120));
      expect(await staking.slashedAccrued()).to.equal(far(30));
      expect(await token.balanceOf(staking)).to.equal(far(150));
      expect(await staking.pendingSlashOf(provider)).to.equal(0n);
    });

    it("waits for the veto window, and lapses after its own", async function () {
      await time.setNextBlockTimestamp(context.executableAt - 1n);
      await refused(execute(context), "SlashNotExecutable", id, context.executableAt);
      await time.increaseTo(context.expiresAt + 1n);
      await refused(execute(context), "SlashExpired", id, context.expiresAt);
      expect(await staking.pendingSlashOf(provider)).to.equal(0n);
    });

    it("works in the first and in the last second of its window", async function () {
      await time.setNextBlockTimestamp(context.executableAt);
      await execute(context);
      await staking.connect(slasher).proposeSlash(neighbour, 1n, EVIDENCE);
      const second = await staking.slashIdOf(neighbour, EVIDENCE);
      await time.setNextBlockTimestamp((await staking.slashOf(second)).expiresAt);
      await staking.connect(slasher).executeSlash(second);
    });

    it("happens once", async function () {
      await ripe(context);
      await execute(context);
      await refused(execute(context), "SlashNotProposed", id, Status.Executed);
      await refused(
        staking.connect(slasher).executeSlash(ethers.id("none")),
        "SlashNotProposed",
        ethers.id("none"),
        Status.None,
      );
    });

    it("reaches what is unbonding, after the active stake", async function () {
      await staking.connect(provider).requestUnstake(far(90));
      await ripe(context);
      await execute(context);
      expect(await stakeOf(provider)).to.deep.equal([0n, far(70)]);
    });

    it("cannot be run away from", async function () {
      await staking.connect(provider).requestUnstake(far(100));
      const { readyAt } = await staking.stakeOf(provider);
      // A proposal so late that the unbonding ends within its veto window.
      await time.increaseTo(context.expiresAt + 1n);
      await propose(context, far(30), ethers.id("late"));
      expect(await now()).to.be.at.least(readyAt);
      await finish(context);
      expect(await stakeOf(provider)).to.deep.equal([0n, far(30)]);
      const late = await staking.slashIdOf(provider, ethers.id("late"));
      await refused(finish(context), "StakingHeldBySlash", provider, late);
      await time.increase(VETO);
      await staking.connect(slasher).executeSlash(late);
      await refused(finish(context), "StakingNothingUnbonding", provider);
    });

    it("holds nothing back any more once it has lapsed", async function () {
      await staking.connect(provider).requestUnstake(far(100));
      await time.increaseTo(context.expiresAt + 1n);
      await propose(context, far(30), ethers.id("late"));
      const late = await staking.slashOf(await staking.slashIdOf(provider, ethers.id("late")));
      await time.setNextBlockTimestamp(late.expiresAt);
      await finish(context);
      expect(await stakeOf(provider)).to.deep.equal([0n, far(30)]);
      await finish(context);
      expect(await stakeOf(provider)).to.deep.equal([0n, 0n]);
    });

    shouldBeOnlyFor(
      "SLASHER_ROLE",
      "slasher",
      async (c, signer) => {
        await ripe(c);
        return execute(c, signer);
      },
      getContext,
    );
    shouldStopWhilePaused(async (c) => {
      await ripe(c);
      return execute(c);
    }, getContext);
  });

  describe("withdrawSlashed", function () {
    startFrom(async function withSlashed() {
      const fixture = await withProposal();
      await time.increaseTo(fixture.executableAt);
      await fixture.staking.connect(fixture.slasher).executeSlash(fixture.id);
      return fixture;
    });

    const withdraw = (c, amount = 1n, to = c.stranger, signer = c.treasurer) =>
      c.staking.connect(signer).withdrawSlashed(to, amount);

    it("sends what was slashed to where the treasurer says, as far as it goes", async function () {
      const withdrawing = await withdraw(context, far(10));
      await expect(withdrawing).to.emit(staking, "SlashedWithdrawn").withArgs(stranger, far(10));
      await expect(withdrawing).to.changeTokenBalances(ethers, token, [staking, stranger], [-far(10), far(10)]);
      await refused(withdraw(context, far(20) + 1n), "SlashedInsufficient", far(20), far(20) + 1n);
      await refused(withdraw(context, 0n), "StakingZeroAmount");
      await refused(withdraw(context, 1n, ZeroAddress), "StakingInvalidAddress", ZeroAddress);
    });

    shouldBeOnlyFor("TREASURER_ROLE", "treasurer", (c, signer) => withdraw(c, 1n, c.stranger, signer), getContext);
    shouldWorkWhilePaused((c) => withdraw(c), getContext);
  });

  describe("pause", function () {
    startFrom(deployed);

    shouldBeOnlyFor(
      "PAUSER_ROLE",
      "pauser",
      async (c, signer) => {
        await c.staking.connect(signer).pause();
        return c.staking.connect(signer).unpause();
      },
      getContext,
    );

    it("cannot be ended by a stranger", async function () {
      await staking.connect(pauser).pause();
      const role = ethers.id("PAUSER_ROLE");
      await refused(staking.connect(stranger).unpause(), "AccessControlUnauthorizedAccount", stranger, role);
    });
  });

  describe("reentrancy", function () {
    // The token itself is the attacker: it holds every role and a stake, and calls in mid-transfer.
    startFrom(async function withEvilToken() {
      const signers = await deployed();
      const evil = await ethers.deployContract("ReentrantToken", [signers.provider]);
      const vault = await deployStaking(evil, { ...signers, slasher: evil, vetoer: evil, treasurer: evil });
      await evil.connect(signers.provider).approve(vault, MaxUint256);
      await vault.connect(signers.provider).stake(far(100));
      await vault.connect(signers.provider).requestUnstake(far(50));
      await time.increase(UNBONDING);
      return { ...signers, staking: vault, token: evil };
    });

    const attacks = {
      stake: () => [1n],
      requestUnstake: () => [1n],
      finishUnstake: () => [provider.address],
      executeSlash: () => [ZeroHash],
      withdrawSlashed: () => [provider.address, 1n],
    };

    for (const [name, args] of Object.entries(attacks)) {
      it(`does not let ${name} in while tokens move`, async function () {
        await token.arm(staking, staking.interface.encodeFunctionData(name, args()));
        await refused(staking.connect(provider).stake(1n), "ReentrancyGuardReentrantCall");
        await refused(finish(context), "ReentrancyGuardReentrantCall");
      });
    }
  });

  it("says that it is access controlled (ERC-165)", async function () {
    const { staking } = await loadFixture(deployed);
    expect(await staking.supportsInterface("0x7965db0b")).to.equal(true);
  });
});
