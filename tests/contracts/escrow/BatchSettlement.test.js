import { expect } from "chai";
import { shouldBeOnlyFor, shouldStopWhilePaused, shouldWorkWhilePaused } from "../access.behavior.js";
import {
  admin,
  context,
  escrow,
  getContext,
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
  ethers,
  far,
  feeOn,
  FEE_BPS,
  NOBODY,
  now,
  payoutTree,
  requestId,
  time,
  UNIT,
  withPool,
} from "../support.js";

const { MaxUint256, ZeroAddress, ZeroHash } = ethers;
const DETAILS = requestId("details");

const charge = (...lines) => ({ users: lines.map(([who]) => who.address), amounts: lines.map(([, amount]) => amount) });

describe("BatchSettlement", function () {
  /** By default 40 FAR to three providers and 10 FAR of fee, all of it from the pool. */
  function settle(c, changes = {}) {
    const {
      batchId = 1n,
      charges = NOBODY,
      whom = c.providers,
      amounts = [far(20), far(15), far(5)],
      fee = far(10),
      signer = c.settler,
    } = changes;
    return c.escrow.connect(signer).settleBatch(batchId, DETAILS, charges, whom, amounts, fee);
  }

  /** `act(context, batchId)` must use an id up. */
  function shouldUseABatchIdOnce(act) {
    it("uses an id once", async function () {
      expect(await escrow.isBatchSettled(7n)).to.equal(false);
      await act(context, 7n);
      expect(await escrow.isBatchSettled(7n)).to.equal(true);
      await refused(act(context, 7n), "BatchAlreadySettled", 7n);
    });

    it("shares its ids with every other kind of batch, in any order", async function () {
      await settle(context, { batchId: 9n, whom: [providers[0]], amounts: [1n], fee: 0n });
      await refused(act(context, 9n), "BatchAlreadySettled", 9n);
      await act(context, 8n);
      await act(context, MaxUint256);
      expect(await escrow.isBatchSettled(10n)).to.equal(false);
    });
  }

  /** `pay(context, {charges, total, fee})` pays `total` and `fee` out of charges and pool, and announces it. */
  function shouldBePaidByUsersAndPool(event, pay) {
    it("takes from the pool what nobody is charged for", async function () {
      await pay(context, { total: far(40), fee: far(10) });
      const { pool, deposit, fees } = await books(context);
      expect([pool, deposit, fees]).to.deep.equal([far(10), far(900), far(10)]);
    });

    it("charges users by their allowances", async function () {
      const charges = charge([user, far(50)]);
      const paying = await pay(context, { charges, total: far(40), fee: far(10) });
      const [announced] = await escrow.queryFilter(event, (await paying.wait()).blockNumber);
      expect(announced.args.charges).to.deep.equal([[user.address], [far(50)]]);
      const { pool, deposit, fees } = await books(context);
      expect([pool, deposit, fees]).to.deep.equal([far(60), far(850), far(10)]);
      expect(await escrow.spendingAllowance(user)).to.equal(far(250));
    });

    it("takes what users do not cover from the pool", async function () {
      await pay(context, { charges: charge([user, far(20)]), total: far(40), fee: far(10) });
      const { pool, deposit } = await books(context);
      expect([pool, deposit]).to.deep.equal([far(30), far(880)]);
    });

    it("charges a user no more than consent and deposit", async function () {
      const total = far(320);
      const all = charge([user, far(300) + 1n]);
      await refused(
        pay(context, { charges: all, total, fee: 0n }),
        "EscrowInsufficientAllowance",
        user,
        far(300),
        far(300) + 1n,
      );
      await escrow.connect(user).withdrawDeposit(far(800));
      await refused(
        pay(context, { charges: charge([user, far(101)]), total, fee: 0n }),
        "EscrowInsufficientDeposit",
        user,
        far(100),
        far(101),
      );
    });

    it("charges nobody who did not consent, or who withdrew the consent", async function () {
      await escrow.connect(other).deposit(far(100));
      await refused(
        pay(context, { charges: charge([other, 1n]), total: far(1), fee: 0n }),
        "EscrowInsufficientAllowance",
        other,
        0n,
        1n,
      );
      await escrow.connect(user).setSpendingAllowance(0n);
      await refused(
        pay(context, { charges: charge([user, 1n]), total: far(1), fee: 0n }),
        "EscrowInsufficientAllowance",
        user,
        0n,
        1n,
      );
    });

    it("never charges users more than it pays out", async function () {
      const charges = charge([user, far(50) + 1n]);
      await refused(
        pay(context, { charges, total: far(40), fee: far(10) }),
        "BatchOvercharged",
        far(50) + 1n,
        far(50),
      );
    });

    it("never pays out more than users and pool have, whatever else lies here", async function () {
      await refused(pay(context, { total: far(60) + 1n, fee: 0n }), "EscrowInsufficientPool", far(60), far(60) + 1n);
      await pay(context, { total: far(48), fee: far(12) });
      await refused(pay(context, { total: 1n, fee: 0n }), "EscrowInsufficientPool", 0n, 1n);
      const { deposit, channels } = await books(context);
      expect([deposit, channels]).to.deep.equal([far(900), far(40)]);
    });

    it("takes any fee up to the rate of the day, and none above", async function () {
      const most = feeOn(far(40), FEE_BPS);
      await refused(pay(context, { total: far(40), fee: most + 1n }), "EscrowFeeTooHigh", most + 1n, most);
      await pay(context, { total: far(40), fee: most });
      await escrow.connect(treasurer).setFeeBps(0);
      await refused(pay(context, { total: far(4), fee: UNIT }), "EscrowFeeTooHigh", UNIT, 0n);
      await pay(context, { total: far(4), fee: 0n });
    });

    it("counts towards the daily cap, fee included", async function () {
      await escrow.connect(admin).setReleaseCapPerDay(far(50));
      await pay(context, { total: far(40), fee: far(10) });
      expect(await escrow.releasedToday()).to.equal(far(50));
      await refused(pay(context, { total: 1n, fee: 0n }), "EscrowReleaseCapExceeded", far(50), far(50), 1n);
    });

    it("refuses lists of users of the wrong length", async function () {
      const charges = { users: [user.address], amounts: [] };
      await refused(pay(context, { charges, total: far(1), fee: 0n }), "EscrowLengthMismatch", 1, 0);
    });

    it("cannot be made to overflow", async function () {
      await expect(pay(context, { total: MaxUint256, fee: 0n })).to.be.revertedWithPanic(0x11);
    });
  }

  describe("settleBatch", function () {
    startFrom(withPool);

    it("credits providers and fee", async function () {
      await expect(settle(context))
        .to.emit(escrow, "BatchSettled")
        .withArgs(
          1n,
          DETAILS,
          [[], []],
          providers.map((p) => p.address),
          [far(20), far(15), far(5)],
          far(10),
        );
      expect(await books(context)).to.deep.equal({
        deposit: far(900),
        held: far(1_000),
        deposits: far(900),
        escrowed: 0n,
        channels: far(40),
        pool: far(10),
        reserved: 0n,
        credits: far(40),
        fees: far(10),
        earned: [far(20), far(15), far(5)],
      });
    });

    it("refuses lists of different length, empty or too long", async function () {
      await refused(settle(context, { amounts: [1n] }), "EscrowLengthMismatch", 3, 1);
      await refused(settle(context, { whom: [], amounts: [] }), "EscrowProviderCountOutOfRange", 0, 100);
      const crowd = Array(101).fill(providers[0]);
      await refused(
        settle(context, { whom: crowd, amounts: crowd.map(() => 1n) }),
        "EscrowProviderCountOutOfRange",
        101,
        100,
      );
    });

    it("refuses to credit nobody, itself, or nothing", async function () {
      for (const whom of [ZeroAddress, await escrow.getAddress()]) {
        await refused(settle(context, { whom: [whom], amounts: [1n], fee: 0n }), "EscrowInvalidAddress", whom);
      }
      await refused(settle(context, { amounts: [1n, 0n, 1n], fee: 0n }), "EscrowZeroAmount");
    });

    let nextId = 1_000n;
    shouldBePaidByUsersAndPool("BatchSettled", async (c, { charges, total, fee }) =>
      settle(c, { batchId: nextId++, charges, whom: [c.providers[0]], amounts: [total], fee }),
    );
    shouldUseABatchIdOnce((c, batchId) => settle(c, { batchId, whom: [c.providers[0]], amounts: [1n], fee: 0n }));
    shouldBeOnlyFor("SETTLER_ROLE", "settler", (c, signer) => settle(c, { signer }), getContext);
    shouldStopWhilePaused((c) => settle(c), getContext);
  });

  describe("refundFromPool", function () {
    startFrom(withPool);

    const refund = (c, batchId = 1n, users = [c.user, c.other], amounts = [far(5), far(1)], signer = c.settler) =>
      c.escrow.connect(signer).refundFromPool(batchId, DETAILS, users, amounts);

    it("returns money of the pool to deposits", async function () {
      await expect(refund(context))
        .to.emit(escrow, "PoolRefunded")
        .withArgs(1n, DETAILS, [user.address, other.address], [far(5), far(1)]);
      const { pool, deposit, deposits, held } = await books(context);
      expect([pool, deposit, deposits, held]).to.deep.equal([far(54), far(905), far(906), far(1_000)]);
    });

    it("returns no more than the pool has, and nothing to nobody", async function () {
      await refused(
        refund(context, 1n, [user], [far(60) + 1n]),
        "EscrowInsufficientPool",
        far(60),
        far(60) + 1n,
      );
      await refused(refund(context, 1n, [ZeroAddress], [1n]), "EscrowInvalidAddress", ZeroAddress);
      await refused(refund(context, 1n, [escrow], [1n]), "EscrowInvalidAddress", escrow);
      await refused(refund(context, 1n, [user], []), "EscrowLengthMismatch", 1, 0);
    });

    it("counts towards the daily cap", async function () {
      await escrow.connect(admin).setReleaseCapPerDay(far(5));
      await refused(refund(context), "EscrowReleaseCapExceeded", far(5), 0n, far(6));
    });

    shouldUseABatchIdOnce((c, batchId) => refund(c, batchId, [c.user], [1n]));
    shouldBeOnlyFor("SETTLER_ROLE", "settler", (c, signer) => refund(c, 1n, [c.user], [1n], signer), getContext);
    shouldStopWhilePaused((c) => refund(c), getContext);
  });

  describe("commitPayoutRoot", function () {
    startFrom(withPool);

    const commit = (c, changes = {}) => {
      const { epoch = 1n, root = DETAILS, total = far(40), fee = far(10), charges = NOBODY } = changes;
      return c.escrow.connect(changes.signer ?? c.settler).commitPayoutRoot(epoch, root, total, fee, charges);
    };

    it("sets the total aside for a day before anything can be claimed", async function () {
      const committing = await commit(context);
      const claimableAt = (await now()) + DAY;
      await expect(committing)
        .to.emit(escrow, "PayoutRootCommitted")
        .withArgs(1n, DETAILS, [[], []], far(40), far(10), claimableAt);
      expect(await escrow.payoutRootOf(1n)).to.deep.equal([DETAILS, far(40), BigInt(claimableAt)]);
      const { pool, reserved, credits, fees } = await books(context);
      expect([pool, reserved, credits, fees]).to.deep.equal([far(10), far(40), 0n, far(10)]);
      expect(await escrow.PAYOUT_DELAY()).to.equal(DAY);
    });

    it("refuses an empty root, and a root for nothing", async function () {
      await refused(commit(context, { root: ZeroHash }), "PayoutRootEmpty");
      await refused(commit(context, { total: 0n, fee: 0n }), "EscrowZeroAmount");
    });

    it("uses an epoch once, even if its root was revoked", async function () {
      await commit(context, { total: 1n, fee: 0n });
      await refused(commit(context, { root: requestId("other") }), "PayoutEpochAlreadyUsed", 1n);
      await escrow.connect(pauser).revokePayoutRoot(1n);
      await refused(commit(context), "PayoutEpochAlreadyUsed", 1n);
    });

    let nextEpoch = 1_000n;
    shouldBePaidByUsersAndPool("PayoutRootCommitted", async (c, { charges, total, fee }) =>
      commit(c, { epoch: nextEpoch++, charges, total, fee }),
    );
    shouldBeOnlyFor("SETTLER_ROLE", "settler", (c, signer) => commit(c, { signer }), getContext);
    shouldStopWhilePaused((c) => commit(c), getContext);
  });

  describe("payout roots", function () {
    // Two epochs of three providers. Amounts add up over the epochs; the third came only with the second.
    startFrom(async function withPayouts() {
      const fixture = await withPool();
      const { escrow, settler, providers } = fixture;
      const [a, b, c] = providers.map((p) => p.address);
      const first = payoutTree([[a, far(10)], [b, far(6)]]);
      const second = payoutTree([[a, far(15)], [b, far(6)], [c, far(4)]]);
      await escrow.connect(settler).commitPayoutRoot(1n, first.root, far(16), far(4), NOBODY);
      await escrow.connect(settler).commitPayoutRoot(2n, second.root, far(9), 0n, NOBODY);
      const claimableAt = (await escrow.payoutRootOf(2n)).claimableAt;
      return { ...fixture, first, second, claimableAt };
    });

    const claim = (c, epoch, provider, cumulative, proof, signer = c.stranger) =>
      c.escrow.connect(signer).claimPayout(epoch, provider, cumulative, proof);
    const ripen = () => time.increaseTo(context.claimableAt);

    describe("claimPayout", function () {
      it("credits what the provider is owed, whoever calls it", async function () {
        await ripen();
        await expect(claim(context, 1n, providers[0], far(10), context.first.proofOf(0)))
          .to.emit(escrow, "PayoutClaimed")
          .withArgs(1n, providers[0], far(10), far(10));
        expect(await escrow.creditOf(providers[0])).to.equal(far(10));
        expect(await escrow.claimedOf(providers[0])).to.equal(far(10));
        const { reserved, credits } = await books(context);
        expect([reserved, credits]).to.deep.equal([far(15), far(10)]);
      });

      it("pays a later epoch only what it adds", async function () {
        await ripen();
        await claim(context, 1n, providers[0], far(10), context.first.proofOf(0));
        await claim(context, 2n, providers[0], far(15), context.second.proofOf(0));
        expect(await escrow.creditOf(providers[0])).to.equal(far(15));
      });

      it("pays who missed an epoch all at once", async function () {
        await ripen();
        await claim(context, 2n, providers[0], far(15), context.second.proofOf(0));
        expect(await escrow.creditOf(providers[0])).to.equal(far(15));
        await refused(
          claim(context, 1n, providers[0], far(10), context.first.proofOf(0)),
          "PayoutNothingToClaim",
          providers[0],
          far(15),
          far(10),
        );
      });

      it("pays everybody, to the last wei of what was set aside", async function () {
        await ripen();
        const owed = [far(15), far(6), far(4)];
        for (const [i, provider] of providers.entries()) {
          await claim(context, 2n, provider, owed[i], context.second.proofOf(i));
          await escrow.connect(provider).withdraw(provider);
          expect(await token.balanceOf(provider)).to.equal(owed[i]);
        }
        expect(await escrow.totalReserved()).to.equal(0n);
      });

      it("pays once", async function () {
        await ripen();
        await claim(context, 2n, providers[2], far(4), context.second.proofOf(2));
        await refused(
          claim(context, 2n, providers[2], far(4), context.second.proofOf(2)),
          "PayoutNothingToClaim",
          providers[2],
          far(4),
          far(4),
        );
      });

      it("waits until the second in which the root is ripe", async function () {
        const proof = context.second.proofOf(2);
        await time.setNextBlockTimestamp(context.claimableAt - 1n);
        await refused(claim(context, 2n, providers[2], far(4), proof), "PayoutNotClaimable", 2n, context.claimableAt);
        await time.setNextBlockTimestamp(context.claimableAt);
        await claim(context, 2n, providers[2], far(4), proof);
      });

      it("refuses another amount, another provider, another epoch and another proof", async function () {
        await ripen();
        const [a, b] = providers;
        const proof = context.second.proofOf(0);
        const forgeries = [
          [2n, a, far(16), proof],
          [2n, stranger, far(15), proof],
          [1n, a, far(15), proof],
          [2n, b, far(6), proof],
          [2n, a, far(15), []],
        ];
        for (const [epoch, provider, cumulative, path] of forgeries) {
          await refused(
            claim(context, epoch, provider, cumulative, path),
            "PayoutProofInvalid",
            epoch,
            provider,
            cumulative,
          );
        }
      });

      it("takes no inner node of the tree for a leaf", async function () {
        await ripen();
        const leaf = (provider, cumulative) => payoutTree([[provider, cumulative]]).root;
        const [a, b] = providers.map((p) => p.address);
        const inner = [leaf(a, far(10)), leaf(b, far(6))].sort();
        // 64 bytes that hash to the root: the halves of it read as a provider and an amount.
        const provider = ethers.getAddress(ethers.dataSlice(inner[0], 12));
        await refused(
          claim(context, 1n, provider, BigInt(inner[1]), []),
          "PayoutProofInvalid",
          1n,
          provider,
          BigInt(inner[1]),
        );
      });

      it("refuses an epoch that does not exist", async function () {
        await refused(claim(context, 3n, providers[0], far(1), []), "PayoutRootUnknown", 3n);
      });

      it("pays no more than what was set aside, even by a root that promises more", async function () {
        const [a] = providers;
        const greedy = payoutTree([[a.address, far(100)]]);
        await escrow.connect(settler).commitPayoutRoot(3n, greedy.root, far(5), 0n, NOBODY);
        await time.increase(DAY);
        await refused(claim(context, 3n, a, far(100), []), "EscrowInsufficientReserve", far(30), far(100));
      });

      it("credits nobody who could not withdraw", async function () {
        const tree = payoutTree([[ZeroAddress, far(5)]]);
        await escrow.connect(settler).commitPayoutRoot(3n, tree.root, far(5), 0n, NOBODY);
        await time.increase(DAY);
        await refused(claim(context, 3n, ZeroAddress, far(5), []), "EscrowInvalidAddress", ZeroAddress);
      });

      it("works while paused", async function () {
        await escrow.connect(pauser).pause();
        await ripen();
        await claim(context, 2n, providers[2], far(4), context.second.proofOf(2));
        await escrow.connect(providers[2]).withdraw(providers[2]);
      });
    });

    describe("revokePayoutRoot", function () {
      const revoke = (c, signer = c.pauser) => c.escrow.connect(signer).revokePayoutRoot(2n);

      it("returns the total to the pool, and nobody can claim", async function () {
        const before = await escrow.poolBalance();
        await expect(revoke(context)).to.emit(escrow, "PayoutRootRevoked").withArgs(2n, far(9));
        expect(await escrow.poolBalance()).to.equal(before + far(9));
        expect(await escrow.totalReserved()).to.equal(far(16));
        await ripen();
        await refused(
          claim(context, 2n, providers[2], far(4), context.second.proofOf(2)),
          "PayoutRootUnknown",
          2n,
        );
        await claim(context, 1n, providers[0], far(10), context.first.proofOf(0));
      });

      it("happens once, and not to a root that can be claimed from", async function () {
        await revoke(context);
        await refused(revoke(context), "PayoutRootUnknown", 2n);
        await ripen();
        const { claimableAt } = await escrow.payoutRootOf(1n);
        await refused(escrow.connect(pauser).revokePayoutRoot(1n), "PayoutNotRevocable", 1n, claimableAt);
      });

      it("is in time in the last second before the root is ripe", async function () {
        await time.setNextBlockTimestamp(context.claimableAt - 1n);
        await revoke(context);
      });

      it("cannot come in the second of the first claim", async function () {
        await time.setNextBlockTimestamp(context.claimableAt);
        await refused(revoke(context), "PayoutNotRevocable", 2n, context.claimableAt);
      });

      shouldBeOnlyFor("PAUSER_ROLE", "pauser", revoke, getContext);
      shouldWorkWhilePaused((c) => revoke(c), getContext);
    });
  });
});
