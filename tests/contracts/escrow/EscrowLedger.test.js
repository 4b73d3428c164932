import { expect } from "chai";
import { shouldBeOnlyFor, shouldStopWhilePaused, shouldWorkWhilePaused } from "../access.behavior.js";
import {
  admin,
  context,
  escrow,
  getContext,
  id,
  other,
  pauser,
  providers,
  refused,
  settler,
  startFrom,
  stranger,
  token,
  treasurer,
  user,
} from "../stage.js";
import {
  books,
  DAY,
  deployed,
  deployEscrow,
  ethers,
  far,
  feeOn,
  now,
  requestId,
  signPermit,
  time,
  UNIT,
  withEscrow,
} from "../support.js";

const { MaxUint256, ZeroAddress } = ethers;

describe("EscrowLedger", function () {
  describe("deposit", function () {
    startFrom(deployed);

    it("books what arrives for the caller", async function () {
      const depositing = escrow.connect(other).deposit(far(5));
      await expect(depositing).to.emit(escrow, "Deposited").withArgs(other, other, far(5));
      expect(await escrow.depositOf(other)).to.equal(far(5));
      expect(await escrow.totalDeposits()).to.equal(far(1_005));
      expect(await token.balanceOf(escrow)).to.equal(far(1_005));
    });

    it("refuses nothing, and what was not approved", async function () {
      await refused(escrow.connect(other).deposit(0), "EscrowZeroAmount");
      await expect(escrow.connect(stranger).deposit(1)).to.be.revertedWithCustomError(
        token,
        "ERC20InsufficientAllowance",
      );
    });

    shouldStopWhilePaused((c) => c.escrow.connect(c.user).deposit(1n), getContext);

    it("books a token that takes a fee at what arrived, and stays solvent", async function () {
      const taxed = await ethers.deployContract("FeeOnTransferToken", [user, 100]);
      const bank = await deployEscrow(taxed, context);
      await taxed.connect(user).approve(bank, MaxUint256);
      await expect(bank.connect(user).deposit(far(100)))
        .to.emit(bank, "Deposited")
        .withArgs(user, user, far(99));
      await bank.connect(user).withdrawDeposit(far(99));
      expect(await taxed.balanceOf(bank)).to.equal(0n);
    });

    it("refuses a deposit of which nothing arrives", async function () {
      const taxed = await ethers.deployContract("FeeOnTransferToken", [user, 10_000]);
      const bank = await deployEscrow(taxed, context);
      await taxed.connect(user).approve(bank, MaxUint256);
      await refused(bank.connect(user).deposit(far(100)), "EscrowZeroAmount");
    });

    it("believes no token that says false", async function () {
      const liar = await ethers.deployContract("FalseReturningToken", [user]);
      const bank = await deployEscrow(liar, context);
      await liar.connect(user).approve(bank, MaxUint256);
      await bank.connect(user).deposit(far(1));
      await liar.refuse(true);
      await refused(bank.connect(user).deposit(far(1)), "SafeERC20FailedOperation", liar);
      await refused(bank.connect(user).withdrawDeposit(far(1)), "SafeERC20FailedOperation", liar);
      expect(await bank.depositOf(user)).to.equal(far(1));
    });
  });

  describe("depositFor", function () {
    startFrom(deployed);

    it("books the caller's tokens for the user", async function () {
      const depositing = escrow.connect(other).depositFor(stranger, far(5));
      await expect(depositing).to.emit(escrow, "Deposited").withArgs(stranger, other, far(5));
      expect(await escrow.depositOf(stranger)).to.equal(far(5));
      expect(await escrow.depositOf(other)).to.equal(0n);
    });

    it("refuses users who could never use it", async function () {
      for (const nobody of [ZeroAddress, await escrow.getAddress()]) {
        await refused(escrow.connect(other).depositFor(nobody, 1n), "EscrowInvalidAddress", nobody);
      }
    });

    shouldStopWhilePaused((c) => c.escrow.connect(c.user).depositFor(c.stranger, 1n), getContext);
  });

  describe("depositWithPermit", function () {
    startFrom(async function withPermit() {
      const fixture = await deployed();
      await fixture.token.connect(fixture.other).approve(fixture.escrow, 0);
      const permit = await signPermit(fixture.token, fixture.other, await fixture.escrow.getAddress(), far(7));
      return { ...fixture, permit };
    });

    const submit = (c, amount = far(7)) => c.escrow.connect(c.stranger).depositWithPermit(c.other, amount, ...c.permit);

    it("credits the owner, whoever submits it", async function () {
      await expect(submit(context)).to.emit(escrow, "Deposited").withArgs(other, other, far(7));
      expect(await escrow.depositOf(other)).to.equal(far(7));
      expect(await escrow.depositOf(stranger)).to.equal(0n);
    });

    it("survives a permit that somebody submitted before", async function () {
      await token.connect(stranger).permit(other, escrow, far(7), ...context.permit);
      await submit(context);
      expect(await escrow.depositOf(other)).to.equal(far(7));
    });

    it("does nothing a second time", async function () {
      await submit(context);
      await expect(submit(context)).to.be.revertedWithCustomError(token, "ERC20InsufficientAllowance");
    });

    it("does nothing with a wrong signature and no approval", async function () {
      await expect(submit(context, far(8))).to.be.revertedWithCustomError(token, "ERC20InsufficientAllowance");
    });

    it("needs only the approval if the token knows no permits", async function () {
      const plain = await ethers.deployContract("FeeOnTransferToken", [other, 0]);
      const bank = await deployEscrow(plain, context);
      await plain.connect(other).approve(bank, far(7));
      await bank.connect(stranger).depositWithPermit(other, far(7), ...context.permit);
      expect(await bank.depositOf(other)).to.equal(far(7));
    });

    shouldStopWhilePaused((c) => submit(c), getContext);
  });

  describe("withdrawDeposit", function () {
    startFrom(withEscrow);

    it("sends the unlocked part back to the user", async function () {
      const withdrawing = await escrow.connect(user).withdrawDeposit(far(900));
      await expect(withdrawing).to.emit(escrow, "DepositWithdrawn").withArgs(user, far(900));
      await expect(withdrawing).to.changeTokenBalances(ethers, token, [escrow, user], [-far(900), far(900)]);
      expect(await escrow.totalDeposits()).to.equal(0n);
    });

    it("never touches what is locked", async function () {
      await refused(
        escrow.connect(user).withdrawDeposit(far(900) + 1n),
        "EscrowInsufficientDeposit",
        user,
        far(900),
        far(900) + 1n,
      );
    });

    it("refuses nothing", async function () {
      await refused(escrow.connect(user).withdrawDeposit(0), "EscrowZeroAmount");
    });

    shouldWorkWhilePaused((c) => c.escrow.connect(c.user).withdrawDeposit(1n), getContext);
  });

  describe("release cap", function () {
    startFrom(async function withSmallCap() {
      const fixture = await withEscrow();
      await fixture.escrow.connect(fixture.admin).setReleaseCapPerDay(far(50));
      await time.increaseTo(BigInt(Math.ceil((await now()) / DAY)) * BigInt(DAY) + 10n);
      await fixture.escrow.connect(fixture.user).createEscrow(requestId("a"), far(100));
      await fixture.escrow.connect(fixture.user).createEscrow(requestId("b"), far(100));
      return fixture;
    });

    const release = async (name, net) =>
      escrow.connect(settler).releaseMultiple(await escrow.escrowIdOf(user, requestId(name)), [providers[0]], [net]);

    it("counts fees too, and stops exactly at the cap", async function () {
      await release("a", far(32));
      expect(await escrow.releasedToday()).to.equal(far(40));
      await refused(release("b", far(8) + 1n), "EscrowReleaseCapExceeded", far(50), far(40), far(10) + 1n);
      await release("b", far(8));
      expect(await escrow.releasedToday()).to.equal(far(50));
    });

    it("starts anew with the UTC day", async function () {
      await escrow.connect(user).setSpendingAllowance(far(100));
      await escrow.connect(settler).createEscrowWithAllowance(user, requestId("long"), far(100), DAY);
      await release("a", far(40));
      await refused(release("long", 1n), "EscrowReleaseCapExceeded", far(50), far(50), 1n);
      const midnight = (BigInt(await now()) / BigInt(DAY) + 1n) * BigInt(DAY);
      await time.setNextBlockTimestamp(midnight - 1n);
      await refused(release("long", 1n), "EscrowReleaseCapExceeded", far(50), far(50), 1n);
      await time.setNextBlockTimestamp(midnight);
      await release("long", far(40));
      expect(await escrow.releasedToday()).to.equal(far(50));
    });

    it("holds across a batch", async function () {
      const releases = await Promise.all(
        ["a", "b"].map(async (name) => ({
          escrowId: await escrow.escrowIdOf(user, requestId(name)),
          providers: [providers[0].address],
          amounts: [far(24)],
        })),
      );
      await refused(
        escrow.connect(settler).releaseBatch(releases),
        "EscrowReleaseCapExceeded",
        far(50),
        far(30),
        far(30),
      );
    });

    it("of zero stops every release, and no refund", async function () {
      await escrow.connect(admin).setReleaseCapPerDay(0);
      await refused(release("a", 1n), "EscrowReleaseCapExceeded", 0n, 0n, 1n);
      await escrow.connect(settler).cancel(await escrow.escrowIdOf(user, requestId("a")));
    });

    it("is announced when it changes", async function () {
      await expect(escrow.connect(admin).setReleaseCapPerDay(7n)).to.emit(escrow, "ReleaseCapSet").withArgs(7n);
      expect(await escrow.releaseCapPerDay()).to.equal(7n);
    });

    shouldBeOnlyFor(
      "DEFAULT_ADMIN_ROLE",
      "admin",
      (c, signer) => c.escrow.connect(signer).setReleaseCapPerDay(1n),
      getContext,
    );
  });

  describe("withdraw", function () {
    startFrom(async function withCredits() {
      const fixture = await withEscrow();
      const { escrow, settler, id, providers } = fixture;
      await escrow.connect(settler).releaseMultiple(id, providers.slice(0, 2), [far(30), far(10)]);
      return fixture;
    });

    it("sends all the caller has earned to where the caller says", async function () {
      const withdrawing = await escrow.connect(providers[0]).withdraw(stranger);
      await expect(withdrawing).to.emit(escrow, "CreditWithdrawn").withArgs(providers[0], stranger, far(30));
      await expect(withdrawing).to.changeTokenBalances(ethers, token, [escrow, stranger], [-far(30), far(30)]);
      expect(await escrow.creditOf(providers[0])).to.equal(0n);
      expect(await escrow.creditOf(providers[1])).to.equal(far(10));
      expect(await escrow.totalCredits()).to.equal(far(10));
    });

    it("sends it once", async function () {
      await escrow.connect(providers[0]).withdraw(providers[0]);
      await refused(escrow.connect(providers[0]).withdraw(providers[0]), "EscrowNoCredit", providers[0]);
      await refused(escrow.connect(stranger).withdraw(stranger), "EscrowNoCredit", stranger);
    });

    it("refuses to send it nowhere, or to the escrow itself", async function () {
      for (const nowhere of [ZeroAddress, await escrow.getAddress()]) {
        await refused(escrow.connect(providers[0]).withdraw(nowhere), "EscrowInvalidAddress", nowhere);
      }
    });

    shouldWorkWhilePaused((c) => c.escrow.connect(c.providers[0]).withdraw(c.providers[0]), getContext);
  });

  describe("fees", function () {
    startFrom(async function withFees() {
      const fixture = await withEscrow();
      await fixture.escrow.connect(fixture.settler).releaseMultiple(fixture.id, [fixture.providers[0]], [far(40)]);
      return fixture;
    });

    it("go to where the treasurer says, as far as they go", async function () {
      const withdrawing = await escrow.connect(treasurer).withdrawFees(stranger, far(4));
      await expect(withdrawing).to.emit(escrow, "FeesWithdrawn").withArgs(stranger, far(4));
      await expect(withdrawing).to.changeTokenBalances(ethers, token, [escrow, stranger], [-far(4), far(4)]);
      expect(await escrow.feesAccrued()).to.equal(far(6));
      const tooMuch = escrow.connect(treasurer).withdrawFees(stranger, far(6) + 1n);
      await refused(tooMuch, "EscrowInsufficientFees", far(6), far(6) + 1n);
    });

    it("refuses to send nothing, or nowhere", async function () {
      await refused(escrow.connect(treasurer).withdrawFees(stranger, 0), "EscrowZeroAmount");
      await refused(escrow.connect(treasurer).withdrawFees(ZeroAddress, 1n), "EscrowInvalidAddress", ZeroAddress);
      await refused(escrow.connect(treasurer).withdrawFees(escrow, 1n), "EscrowInvalidAddress", escrow);
    });

    it("can be set from 0 to 30 %", async function () {
      for (const feeBps of [0, 3000]) {
        await expect(escrow.connect(treasurer).setFeeBps(feeBps)).to.emit(escrow, "FeeBpsSet").withArgs(feeBps);
        expect(await escrow.feeBps()).to.equal(BigInt(feeBps));
      }
      await refused(escrow.connect(treasurer).setFeeBps(3001), "EscrowFeeTooHigh", 3001, 3000);
    });

    it("are not taken at 0 %", async function () {
      const before = await escrow.feesAccrued();
      await escrow.connect(treasurer).setFeeBps(0);
      await escrow.connect(user).createEscrow(requestId("free"), far(10));
      const free = await escrow.escrowIdOf(user, requestId("free"));
      await escrow.connect(settler).releaseMultiple(free, [providers[0]], [far(10)]);
      expect(await escrow.feesAccrued()).to.equal(before);
    });

    describe("withdrawFees", function () {
      shouldBeOnlyFor(
        "TREASURER_ROLE",
        "treasurer",
        (c, signer) => c.escrow.connect(signer).withdrawFees(c.stranger, 1n),
        getContext,
      );
      shouldWorkWhilePaused((c) => c.escrow.connect(c.treasurer).withdrawFees(c.stranger, 1n), getContext);
    });

    describe("setFeeBps", function () {
      const setFee = (c, signer) => c.escrow.connect(signer).setFeeBps(1000);
      shouldBeOnlyFor("TREASURER_ROLE", "treasurer", setFee, getContext);
    });
  });

  describe("feeOn", function () {
    startFrom(deployed);

    it("is the fee that makes the split exact", async function () {
      expect(await escrow.feeOn(far(80), 2000)).to.equal(far(20));
      expect(await escrow.feeOn(far(70), 3000)).to.equal(far(30));
      expect(await escrow.feeOn(far(1), 0)).to.equal(0n);
      expect(await escrow.feeOn(0, 2000)).to.equal(0n);
    });

    it("rounds down to the ledger's unit", async function () {
      expect(await escrow.feeOn(UNIT * 4n, 2000)).to.equal(UNIT);
      expect(await escrow.feeOn(UNIT * 4n - 1n, 2000)).to.equal(0n);
      expect(await escrow.feeOn(UNIT * 11n, 2000)).to.equal(UNIT * 2n);
    });

    it("refuses a rate above 30 %", async function () {
      await refused(escrow.feeOn(1, 3001), "EscrowFeeTooHigh", 3001, 3000);
    });

    it("agrees with a reference on random values of every size", async function () {
      const random = (bits) => BigInt(ethers.hexlify(ethers.randomBytes(32))) >> BigInt(256 - bits);
      const cases = Array.from({ length: 256 }, (_, i) => [random(8 + (i % 232)), random(16) % 3001n]);
      const answers = await Promise.all(cases.map(([total, feeBps]) => escrow.feeOn(total, feeBps)));
      cases.forEach(([total, feeBps], i) => {
        expect(answers[i], `feeOn(${total}, ${feeBps})`).to.equal(feeOn(total, feeBps));
      });
    });
  });

  describe("pause", function () {
    startFrom(deployed);

    const pauseAndResume = async (c, signer) => {
      await c.escrow.connect(signer).pause();
      return c.escrow.connect(signer).unpause();
    };
    shouldBeOnlyFor("PAUSER_ROLE", "pauser", pauseAndResume, getContext);

    it("cannot be ended by a stranger", async function () {
      await escrow.connect(pauser).pause();
      await refused(
        escrow.connect(stranger).unpause(),
        "AccessControlUnauthorizedAccount",
        stranger,
        ethers.id("PAUSER_ROLE"),
      );
      expect(await escrow.paused()).to.equal(true);
    });

    shouldWorkWhilePaused((c) => c.escrow.connect(c.user).cancelNonce(1n), getContext);
  });
});
