import { expect } from "chai";
import { shouldBeOnlyFor, shouldStopWhilePaused, shouldWorkWhilePaused } from "../access.behavior.js";
import { shouldBoundTheLock, shouldLockMoney, shouldNeedAnOpenEscrow } from "../escrow.behavior.js";
import {
  admin,
  context,
  deadline,
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
  treasurer,
  user,
} from "../stage.js";
import {
  books,
  DEFAULT_LOCK,
  deployed,
  ethers,
  far,
  FEE_BPS,
  feeOn,
  intentOf,
  now,
  requestId,
  signIntent,
  Status,
  time,
  UNIT,
  withEscrow,
  withAllowanceEscrow,
} from "../support.js";

const { MaxUint256, ZeroAddress } = ethers;

describe("RequestEscrows", function () {
  describe("createEscrow", function () {
    startFrom(deployed);
    const create = (c, { name, amount }) => c.escrow.connect(c.user).createEscrow(requestId(name), amount);

    shouldLockMoney(create, getContext);
    shouldStopWhilePaused((c) => create(c, { name: "a", amount: 1n }), getContext);

    it("locks for half an hour", async function () {
      await create(context, { name: "a", amount: 1n });
      const made = await escrow.escrowOf(await escrow.escrowIdOf(user, requestId("a")));
      expect(made.deadline).to.equal((await now()) + DEFAULT_LOCK);
      expect(made.allowanceEpoch).to.equal(0n);
    });

    it("answers with the id that escrowIdOf says", async function () {
      const encoded = ethers.AbiCoder.defaultAbiCoder().encode(["address", "bytes32"], [user.address, requestId("a")]);
      expect(await escrow.connect(user).createEscrow.staticCall(requestId("a"), 1n)).to.equal(
        ethers.keccak256(encoded),
      );
      expect(await escrow.escrowIdOf(user, requestId("a"))).to.equal(ethers.keccak256(encoded));
    });

    it("freezes the fee", async function () {
      await create(context, { name: "a", amount: far(100) });
      await escrow.connect(treasurer).setFeeBps(3000);
      const first = await escrow.escrowIdOf(user, requestId("a"));
      await escrow.connect(settler).releaseMultiple(first, [providers[0]], [far(80)]);
      expect(await escrow.feesAccrued()).to.equal(far(20));
    });
  });

  describe("createEscrowFor", function () {
    startFrom(deployed);

    let nextNonce = 100n;
    const submit = async (c, intent, signer = c.user, domain = {}) =>
      c.escrow.connect(c.stranger).createEscrowFor(intent, await signIntent(signer, c.escrow, intent, domain));
    const create = async (c, { name, amount }) =>
      submit(c, await intentOf(c.user, { requestId: requestId(name), maxAmount: amount, nonce: nextNonce++ }));

    shouldLockMoney(create, getContext);
    shouldBoundTheLock(async (c, lockSeconds) => submit(c, await intentOf(c.user, { lockSeconds })), getContext);
    shouldStopWhilePaused((c) => create(c, { name: "a", amount: 1n }), getContext);

    it("uses up the nonce", async function () {
      const intent = await intentOf(user);
      expect(await escrow.isNonceUsed(user, intent.nonce)).to.equal(false);
      await expect(submit(context, intent)).to.emit(escrow, "NonceUsed").withArgs(user, intent.nonce);
      expect(await escrow.isNonceUsed(user, intent.nonce)).to.equal(true);
      expect(await escrow.isNonceUsed(other, intent.nonce)).to.equal(false);
    });

    it("refuses the same intent again, or another one with its nonce", async function () {
      const intent = await intentOf(user);
      await submit(context, intent);
      await refused(submit(context, intent), "EscrowNonceAlreadyUsed", user, intent.nonce);
      const sameNonce = await intentOf(user, { requestId: requestId("another") });
      await refused(submit(context, sameNonce), "EscrowNonceAlreadyUsed", user, intent.nonce);
    });

    it("refuses an intent that its user cancelled", async function () {
      const intent = await intentOf(user);
      await expect(escrow.connect(user).cancelNonce(intent.nonce))
        .to.emit(escrow, "NonceCancelled")
        .withArgs(user, intent.nonce);
      await refused(submit(context, intent), "EscrowNonceAlreadyUsed", user, intent.nonce);
      await refused(escrow.connect(user).cancelNonce(intent.nonce), "EscrowNonceAlreadyUsed", user, intent.nonce);
    });

    it("lets nobody cancel somebody else's intent", async function () {
      const intent = await intentOf(user);
      await escrow.connect(stranger).cancelNonce(intent.nonce);
      await submit(context, intent);
    });

    it("takes an intent in its last second, and not after", async function () {
      const validUntil = (await now()) + 100;
      const intent = await intentOf(user, { validUntil });
      const late = await intentOf(user, { validUntil, nonce: 8n, requestId: requestId("late") });
      await time.setNextBlockTimestamp(validUntil);
      await submit(context, intent);
      await time.setNextBlockTimestamp(validUntil + 1);
      await refused(submit(context, late), "EscrowIntentExpired", validUntil);
    });

    it("refuses a fee above the one that was signed", async function () {
      await refused(submit(context, await intentOf(user, { maxFeeBps: 1999 })), "EscrowFeeTooHigh", 2000, 1999);
    });

    it("refuses a signature of somebody else", async function () {
      await refused(submit(context, await intentOf(user), other), "EscrowInvalidSignature", user);
      await refused(submit(context, await intentOf(ZeroAddress), other), "EscrowInvalidSignature", ZeroAddress);
    });

    it("refuses a signature for anything else", async function () {
      const intent = await intentOf(user);
      const signature = await signIntent(user, escrow, intent);
      const changes = [
        { requestId: requestId("x") },
        { maxAmount: far(51) },
        { lockSeconds: 601 },
        { maxFeeBps: 2001 },
        { nonce: 9n },
        { validUntil: intent.validUntil + 1 },
      ];
      for (const change of changes) {
        const changed = { ...intent, ...change };
        await refused(escrow.createEscrowFor(changed, signature), "EscrowInvalidSignature", user);
      }
    });

    it("refuses a signature for another chain, contract or version", async function () {
      const intent = await intentOf(user);
      const elsewhere = [{ chainId: 97n }, { verifyingContract: stranger.address }, { version: "2" }, { name: "Far" }];
      for (const domain of elsewhere) {
        await refused(submit(context, intent, user, domain), "EscrowInvalidSignature", user);
      }
    });

    it("refuses a signature of the wrong length", async function () {
      await refused(escrow.createEscrowFor(await intentOf(user), "0x1234"), "EscrowInvalidSignature", user);
    });

    describe("for a wallet that is a contract", function () {
      let wallet;
      beforeEach(async function () {
        wallet = await ethers.deployContract("ContractWallet", [user]);
        await escrow.connect(user).depositFor(wallet, far(60));
      });

      it("asks the wallet (EIP-1271), and locks the wallet's deposit", async function () {
        await submit(context, await intentOf(wallet));
        expect(await escrow.depositOf(wallet)).to.equal(far(10));
        expect(await escrow.depositOf(user)).to.equal(far(1_000));
      });

      it("refuses a signature that the wallet refuses", async function () {
        await refused(submit(context, await intentOf(wallet), other), "EscrowInvalidSignature", wallet);
        for (const answer of [1n, 2n]) {
          await wallet.setAnswer(answer);
          await refused(submit(context, await intentOf(wallet)), "EscrowInvalidSignature", wallet);
        }
      });
    });
  });

  describe("spending allowance", function () {
    startFrom(deployed);

    const spend = (c, name, amount, lock = DEFAULT_LOCK) =>
      c.escrow.connect(c.settler).createEscrowWithAllowance(c.user, requestId(name), amount, lock);

    it("is nothing until the user sets it", async function () {
      expect(await escrow.spendingAllowance(user)).to.equal(0n);
      await refused(spend(context, "a", 1n), "EscrowInsufficientAllowance", user, 0n, 1n);
    });

    it("is set by the user for the user", async function () {
      await expect(escrow.connect(user).setSpendingAllowance(far(3)))
        .to.emit(escrow, "SpendingAllowanceSet")
        .withArgs(user, far(3));
      expect(await escrow.spendingAllowance(user)).to.equal(far(3));
      expect(await escrow.spendingAllowance(other)).to.equal(0n);
    });

    shouldWorkWhilePaused((c) => c.escrow.connect(c.user).setSpendingAllowance(0), getContext);

    describe("createEscrowWithAllowance", function () {
      beforeEach(async function () {
        await escrow.connect(user).setSpendingAllowance(far(2_000));
      });

      shouldLockMoney((c, { name, amount }) => spend(c, name, amount), getContext);
      shouldBoundTheLock((c, lock) => spend(c, "a", 1n, lock), getContext);
      shouldStopWhilePaused((c) => spend(c, "a", 1n), getContext);
      shouldBeOnlyFor(
        "SETTLER_ROLE",
        "settler",
        (c, signer) => c.escrow.connect(signer).createEscrowWithAllowance(c.user, requestId("a"), 1n, DEFAULT_LOCK),
        getContext,
      );

      it("lowers the allowance", async function () {
        const id = await escrow.escrowIdOf(user, requestId("a"));
        await expect(spend(context, "a", far(100)))
          .to.emit(escrow, "SpendingAllowanceSpent")
          .withArgs(user, id, far(100));
        expect(await escrow.spendingAllowance(user)).to.equal(far(1_900));
      });

      it("stops exactly at the allowance", async function () {
        await escrow.connect(user).setSpendingAllowance(far(100));
        await refused(spend(context, "a", far(100) + 1n), "EscrowInsufficientAllowance", user, far(100), far(100) + 1n);
        await spend(context, "a", far(100));
        expect(await escrow.spendingAllowance(user)).to.equal(0n);
      });
    });

    describe("of an open escrow", function () {
      startFrom(withAllowanceEscrow);

      it("comes back by what a release leaves over", async function () {
        const releasing = escrow.connect(settler).releaseMultiple(id, [providers[0]], [far(40)]);
        await expect(releasing).to.emit(escrow, "SpendingAllowanceRestored").withArgs(user, id, far(50));
        expect(await escrow.spendingAllowance(user)).to.equal(far(250));
      });

      it("does not come back if all was spent", async function () {
        const releasing = escrow.connect(settler).releaseMultiple(id, [providers[0]], [far(80)]);
        await expect(releasing).not.to.emit(escrow, "SpendingAllowanceRestored");
        expect(await escrow.spendingAllowance(user)).to.equal(far(200));
      });

      it("comes back in full when the settler cancels", async function () {
        await escrow.connect(settler).cancel(id);
        expect(await escrow.spendingAllowance(user)).to.equal(far(300));
      });

      it("comes back in full when the user cancels", async function () {
        await time.increaseTo(deadline + 1n);
        await escrow.connect(user).cancel(id);
        expect(await escrow.spendingAllowance(user)).to.equal(far(300));
      });

      it("does not come back over a consent that was withdrawn or renewed since", async function () {
        await escrow.connect(user).setSpendingAllowance(0);
        await escrow.connect(settler).cancel(id);
        expect(await escrow.spendingAllowance(user)).to.equal(0n);
        expect(await escrow.depositOf(user)).to.equal(far(1_000));
      });

      it("is not raised by an escrow that did not use it", async function () {
        await escrow.connect(user).createEscrow(requestId("own"), far(10));
        await escrow.connect(settler).cancel(await escrow.escrowIdOf(user, requestId("own")));
        expect(await escrow.spendingAllowance(user)).to.equal(far(200));
      });

      it("survives being unlimited, which is as much as can be counted", async function () {
        const most = 2n ** 104n - 1n;
        await expect(escrow.connect(user).setSpendingAllowance(MaxUint256))
          .to.emit(escrow, "SpendingAllowanceSet")
          .withArgs(user, most);
        await spend(context, "b", far(1));
        await escrow.connect(settler).cancel(await escrow.escrowIdOf(user, requestId("b")));
        expect(await escrow.spendingAllowance(user)).to.equal(most);
      });
    });
  });

  describe("releaseMultiple", function () {
    startFrom(withEscrow);

    const release = (c, whom = [c.providers[0]], amounts = [far(10)]) =>
      c.escrow.connect(c.settler).releaseMultiple(c.id, whom, amounts);

    it("credits providers and fee, returns the rest, and sends nothing", async function () {
      const amounts = [far(30), far(10), 1n];
      const fee = feeOn(far(40) + 1n, FEE_BPS);
      const refund = far(100) - far(40) - 1n - fee;
      await expect(release(context, providers, amounts))
        .to.emit(escrow, "EscrowReleased")
        .withArgs(
          id,
          providers.map((p) => p.address),
          amounts,
          fee,
          refund,
        );
      expect(await books(context)).to.deep.equal({
        deposit: far(900) + refund,
        held: far(1_000),
        deposits: far(900) + refund,
        escrowed: 0n,
        channels: 0n,
        pool: 0n,
        reserved: 0n,
        credits: far(40) + 1n,
        fees: fee,
        earned: amounts,
      });
      expect((await escrow.escrowOf(id)).status).to.equal(Status.Released);
    });

    it("adds up when a provider is named twice or has earned before", async function () {
      await escrow.connect(user).createEscrow(requestId("next"), far(100));
      await release(context, [providers[0], providers[0]], [far(1), far(2)]);
      const next = await escrow.escrowIdOf(user, requestId("next"));
      await escrow.connect(settler).releaseMultiple(next, [providers[0]], [far(4)]);
      expect(await escrow.creditOf(providers[0])).to.equal(far(7));
    });

    it("can pay out the escrow to the last wei", async function () {
      await expect(release(context, [providers[0]], [far(80)]))
        .to.emit(escrow, "EscrowReleased")
        .withArgs(id, [providers[0].address], [far(80)], far(20), 0n);
      expect(await escrow.depositOf(user)).to.equal(far(900));
    });

    it("cannot pay a unit more than the escrow, fee included", async function () {
      const net = far(80) + UNIT;
      const needed = net + feeOn(net, FEE_BPS);
      await refused(release(context, [providers[0]], [net]), "EscrowAmountExceeded", id, far(100), needed);
      await refused(
        release(context, providers.slice(0, 2), [far(100), 1n]),
        "EscrowAmountExceeded",
        id,
        far(100),
        far(125) + 1n,
      );
    });

    it("cannot be made to overflow", async function () {
      for (const amounts of [
        [MaxUint256, 1n],
        [MaxUint256 / 2n, 1n],
      ]) {
        await expect(release(context, providers.slice(0, 2), amounts)).to.be.revertedWithPanic(0x11);
      }
    });

    it("refuses lists of different length, empty or too long", async function () {
      await refused(release(context, providers, [1n, 2n]), "EscrowLengthMismatch", 3, 2);
      await refused(release(context, [providers[0]], []), "EscrowLengthMismatch", 1, 0);
      await refused(release(context, [], []), "EscrowProviderCountOutOfRange", 0, 100);
      const crowd = Array(101).fill(providers[0]);
      await refused(
        release(
          context,
          crowd,
          crowd.map(() => 1n),
        ),
        "EscrowProviderCountOutOfRange",
        101,
        100,
      );
    });

    it("pays a hundred providers", async function () {
      const crowd = Array.from({ length: 100 }, (_, i) => ethers.toBeHex(i + 1000, 20));
      await release(
        context,
        crowd,
        crowd.map(() => far("0.8")),
      );
      expect(await escrow.creditOf(crowd[99])).to.equal(far("0.8"));
      expect(await escrow.totalCredits()).to.equal(far(80));
    });

    it("refuses to credit nobody, itself, or nothing", async function () {
      await refused(release(context, [ZeroAddress]), "EscrowInvalidAddress", ZeroAddress);
      await refused(release(context, [escrow]), "EscrowInvalidAddress", escrow);
      await refused(release(context, providers, [1n, 0n, 1n]), "EscrowZeroAmount");
    });

    it("works in the second of the deadline, and not in the next", async function () {
      await escrow.connect(user).createEscrow(requestId("late"), far(1));
      const late = await escrow.escrowIdOf(user, requestId("late"));
      await time.setNextBlockTimestamp(deadline);
      await release(context);
      const lateDeadline = (await escrow.escrowOf(late)).deadline;
      await time.setNextBlockTimestamp(lateDeadline + 1n);
      await refused(
        escrow.connect(settler).releaseMultiple(late, [providers[0]], [1n]),
        "EscrowDeadlinePassed",
        late,
        lateDeadline,
      );
    });

    shouldBeOnlyFor(
      "SETTLER_ROLE",
      "settler",
      (c, signer) => c.escrow.connect(signer).releaseMultiple(c.id, [c.providers[0]], [1n]),
      getContext,
    );
    shouldStopWhilePaused((c) => release(c), getContext);
    shouldNeedAnOpenEscrow(
      (c, escrowId) => c.escrow.connect(c.settler).releaseMultiple(escrowId, [c.providers[0]], [1n]),
      getContext,
    );
  });

  describe("releaseBatch", function () {
    startFrom(async function withTwoEscrows() {
      const fixture = await withEscrow();
      await fixture.escrow.connect(fixture.user).createEscrow(requestId("second"), far(50));
      const second = await fixture.escrow.escrowIdOf(fixture.user, requestId("second"));
      return { ...fixture, second };
    });

    const item = (escrowId, whom, amounts) => ({ escrowId, providers: whom.map((p) => p.address), amounts });
    const both = (c) => [
      item(c.id, c.providers, [far(1), far(2), far(3)]),
      item(c.second, [c.providers[0]], [far(40)]),
    ];
    const release = (c, releases = both(c), signer = c.settler) => c.escrow.connect(signer).releaseBatch(releases);

    it("releases each escrow as if alone", async function () {
      const releasing = await release(context);
      await expect(releasing)
        .to.emit(escrow, "EscrowReleased")
        .withArgs(
          id,
          providers.map((p) => p.address),
          [far(1), far(2), far(3)],
          far("1.5"),
          far("92.5"),
        );
      await expect(releasing)
        .to.emit(escrow, "EscrowReleased")
        .withArgs(context.second, [providers[0].address], [far(40)], far(10), 0n);
      const { earned, fees, escrowed } = await books(context);
      expect(earned).to.deep.equal([far(41), far(2), far(3)]);
      expect(fees).to.equal(far("11.5"));
      expect(escrowed).to.equal(0n);
    });

    it("does all or nothing", async function () {
      const [first, second] = both(context);
      await refused(
        release(context, [first, { ...second, amounts: [far(41)] }]),
        "EscrowAmountExceeded",
        context.second,
        far(50),
        far("51.25"),
      );
      expect((await escrow.escrowOf(id)).status).to.equal(Status.Open);
    });

    it("cannot release one escrow twice in a batch", async function () {
      const [first] = both(context);
      await refused(release(context, [first, first]), "EscrowNotOpen", id, Status.Released);
    });

    shouldBeOnlyFor("SETTLER_ROLE", "settler", (c, signer) => release(c, both(c), signer), getContext);
    shouldStopWhilePaused((c) => release(c), getContext);
  });

  describe("cancel", function () {
    startFrom(withEscrow);

    const cancel = (signer) => escrow.connect(signer).cancel(id);

    it("returns everything to the user's deposit, whoever cancels", async function () {
      await expect(cancel(settler)).to.emit(escrow, "EscrowCancelled").withArgs(id, far(100));
      expect(await books(context)).to.deep.equal({
        deposit: far(1_000),
        held: far(1_000),
        deposits: far(1_000),
        escrowed: 0n,
        channels: 0n,
        pool: 0n,
        reserved: 0n,
        credits: 0n,
        fees: 0n,
        earned: [0n, 0n, 0n],
      });
      expect((await escrow.escrowOf(id)).status).to.equal(Status.Cancelled);
    });

    it("is closed to the user in the second of the deadline, and open in the next", async function () {
      await time.setNextBlockTimestamp(deadline);
      await refused(cancel(user), "EscrowDeadlineNotPassed", id, deadline);
      await time.setNextBlockTimestamp(deadline + 1n);
      await cancel(user);
      expect(await escrow.depositOf(user)).to.equal(far(1_000));
    });

    it("does not let a user who was served run before the settler", async function () {
      await refused(cancel(user), "EscrowDeadlineNotPassed", id, deadline);
      await escrow.connect(settler).releaseMultiple(id, [providers[0]], [far(80)]);
      await time.increaseTo(deadline + 1n);
      await refused(cancel(user), "EscrowNotOpen", id, Status.Released);
    });

    it("is open to a settler before and after the deadline", async function () {
      await time.increaseTo(deadline + 1n);
      await cancel(settler);
    });

    it("is not for strangers, before or after the deadline", async function () {
      const role = ethers.id("SETTLER_ROLE");
      await refused(cancel(stranger), "AccessControlUnauthorizedAccount", stranger, role);
      await time.increaseTo(deadline + 1n);
      await refused(cancel(stranger), "AccessControlUnauthorizedAccount", stranger, role);
    });

    it("lets a settler cancel an escrow of its own at once", async function () {
      await escrow.connect(admin).grantRole(ethers.id("SETTLER_ROLE"), user);
      await cancel(user);
    });

    it("works for the user while paused, once the deadline is over", async function () {
      await escrow.connect(pauser).pause();
      await refused(cancel(user), "EscrowDeadlineNotPassed", id, deadline);
      await time.increaseTo(deadline + 1n);
      await cancel(user);
    });

    it("lets a settler who is the user cancel while paused, once the deadline is over", async function () {
      await escrow.connect(admin).grantRole(ethers.id("SETTLER_ROLE"), user);
      await escrow.connect(pauser).pause();
      await refused(cancel(user), "EnforcedPause");
      await time.increaseTo(deadline + 1n);
      await cancel(user);
    });

    shouldStopWhilePaused((c) => c.escrow.connect(c.settler).cancel(c.id), getContext);
    shouldNeedAnOpenEscrow((c, escrowId) => c.escrow.connect(c.settler).cancel(escrowId), getContext);
  });
});
