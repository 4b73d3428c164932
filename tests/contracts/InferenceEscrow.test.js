import { expect } from "chai";
import hre from "hardhat";
import {
  shouldBeOnlyFor,
  shouldBoundTheLock,
  shouldLockMoney,
  shouldNeedAnOpenEscrow,
  shouldStopWhilePaused,
  shouldWorkWhilePaused,
} from "./InferenceEscrow.behavior.js";
import {
  books,
  DAY,
  DEFAULT_LOCK,
  deployed,
  deployEscrow,
  ethers,
  far,
  FEE_BPS,
  feeOn,
  intentOf,
  loadFixture,
  namedSigners,
  now,
  requestId,
  signIntent,
  signPermit,
  Status,
  time,
  UNIT,
} from "./support.js";

const { MaxUint256, ZeroAddress, ZeroHash } = ethers;

/** With an open escrow of 100 FAR made by the user. */
async function withEscrow() {
  const context = await deployed();
  const { escrow, user } = context;
  await escrow.connect(user).createEscrow(requestId("served"), far(100));
  const id = await escrow.escrowIdOf(user, requestId("served"));
  const { deadline } = await escrow.escrowOf(id);
  return { ...context, id, deadline };
}

/** With the same escrow made out of a spending allowance of 300 FAR. */
async function withAllowanceEscrow() {
  const context = await deployed();
  const { escrow, user, settler } = context;
  await escrow.connect(user).setSpendingAllowance(far(300));
  await escrow.connect(settler).createEscrowWithAllowance(user, requestId("served"), far(100), DEFAULT_LOCK);
  const id = await escrow.escrowIdOf(user, requestId("served"));
  const { deadline } = await escrow.escrowOf(id);
  return { ...context, id, deadline };
}

describe("InferenceEscrow", function () {
  let context, escrow, token, admin, settler, pauser, treasurer, user, other, stranger, providers, id, deadline;
  const getContext = () => context;

  function startFrom(fixture) {
    beforeEach(async function () {
      context = await loadFixture(fixture);
      ({ escrow, token, admin, settler, pauser, treasurer, user, other, stranger, providers, id, deadline } = context);
    });
  }

  const refused = (call, error, ...args) =>
    expect(call)
      .to.be.revertedWithCustomError(escrow, error)
      .withArgs(...args);

  describe("deployment", function () {
    startFrom(deployed);

    it("gives each role to its one holder", async function () {
      expect(await escrow.defaultAdmin()).to.equal(admin.address);
      expect(await escrow.defaultAdminDelay()).to.equal(DAY);
      const roles = { SETTLER_ROLE: settler, PAUSER_ROLE: pauser, TREASURER_ROLE: treasurer };
      for (const [role, holder] of Object.entries(roles)) {
        expect(await escrow[role]()).to.equal(ethers.id(role));
        expect(await escrow.hasRole(ethers.id(role), holder)).to.equal(true);
        expect(await escrow.hasRole(ethers.id(role), admin)).to.equal(false);
        expect(await escrow.hasRole(ethers.id(role), context.deployer)).to.equal(false);
      }
    });

    it("fixes the token, and starts with the fee and the cap it was given", async function () {
      expect(await escrow.token()).to.equal(await token.getAddress());
      expect(await escrow.feeBps()).to.equal(FEE_BPS);
      expect(await escrow.releaseCapPerDay()).to.equal(far(1_000_000));
      const creation = escrow.deploymentTransaction();
      await expect(creation).to.emit(escrow, "FeeBpsSet").withArgs(FEE_BPS);
      await expect(creation).to.emit(escrow, "ReleaseCapSet").withArgs(far(1_000_000));
    });

    it("says in which domain intents are signed", async function () {
      const { name, version, chainId, verifyingContract } = await escrow.eip712Domain();
      expect([name, version]).to.deep.equal(["Far Mesh Escrow", "1"]);
      expect(chainId).to.equal((await ethers.provider.getNetwork()).chainId);
      expect(verifyingContract).to.equal(await escrow.getAddress());
    });

    it("publishes its constants", async function () {
      expect(await escrow.UNIT()).to.equal(UNIT);
      expect(await escrow.MAX_FEE_BPS()).to.equal(3000n);
      expect(await escrow.MIN_LOCK()).to.equal(300n);
      expect(await escrow.DEFAULT_LOCK()).to.equal(1800n);
      expect(await escrow.MAX_LOCK()).to.equal(86400n);
      expect(await escrow.MAX_PROVIDERS()).to.equal(100n);
      const type =
        "EscrowIntent(address user,bytes32 requestId,uint256 maxAmount,uint32 lockSeconds,uint16 maxFeeBps,uint256 nonce,uint64 validUntil)";
      expect(await escrow.ESCROW_INTENT_TYPEHASH()).to.equal(ethers.id(type));
    });

    it("refuses an empty token or role", async function () {
      const signers = await namedSigners();
      await refused(deployEscrow(ZeroAddress, signers), "EscrowInvalidAddress", ZeroAddress);
      for (const role of ["settler", "pauser", "treasurer"]) {
        const roles = { ...signers, [role]: ZeroAddress };
        await refused(deployEscrow(token, roles), "EscrowInvalidAddress", ZeroAddress);
      }
      const noAdmin = { ...signers, admin: ZeroAddress };
      await refused(deployEscrow(token, noAdmin), "AccessControlInvalidDefaultAdmin", ZeroAddress);
    });

    it("refuses a fee above 30 %", async function () {
      await refused(deployEscrow(token, context, { feeBps: 3001 }), "EscrowFeeTooHigh", 3001, 3000);
    });
  });

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

      it("survives being unlimited", async function () {
        await escrow.connect(user).setSpendingAllowance(MaxUint256);
        await spend(context, "b", far(1));
        await escrow.connect(settler).cancel(await escrow.escrowIdOf(user, requestId("b")));
        expect(await escrow.spendingAllowance(user)).to.equal(MaxUint256);
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

  describe("administration", function () {
    startFrom(deployed);

    it("lets the admin replace a settler at once", async function () {
      const role = ethers.id("SETTLER_ROLE");
      await escrow.connect(admin).revokeRole(role, settler);
      await escrow.connect(admin).grantRole(role, other);
      expect(await escrow.hasRole(role, settler)).to.equal(false);
      await expect(escrow.connect(stranger).grantRole(role, stranger)).to.be.revertedWithCustomError(
        escrow,
        "AccessControlUnauthorizedAccount",
      );
    });

    it("hands the admin role over in two steps with a delay between them", async function () {
      await escrow.connect(admin).beginDefaultAdminTransfer(other);
      await expect(escrow.connect(other).acceptDefaultAdminTransfer()).to.be.revertedWithCustomError(
        escrow,
        "AccessControlEnforcedDefaultAdminDelay",
      );
      await time.increase(DAY + 1);
      await escrow.connect(other).acceptDefaultAdminTransfer();
      expect(await escrow.defaultAdmin()).to.equal(other.address);
    });

    it("cannot be renounced in one careless call", async function () {
      await expect(escrow.connect(admin).renounceRole(ZeroHash, admin)).to.be.revertedWithCustomError(
        escrow,
        "AccessControlEnforcedDefaultAdminDelay",
      );
    });
  });

  describe("reentrancy", function () {
    // The token itself is the attacker: it holds every role, a deposit and a credit, and calls in mid-transfer.
    startFrom(async function withEvilToken() {
      const signers = await namedSigners();
      const { user } = signers;
      const evil = await ethers.deployContract("ReentrantToken", [user]);
      const escrow = await deployEscrow(evil, { ...signers, settler: evil, treasurer: evil, pauser: evil });
      await evil.connect(user).approve(escrow, MaxUint256);
      await escrow.connect(user).deposit(far(100));
      await escrow.connect(user).depositFor(evil, far(100));
      return { ...signers, escrow, token: evil };
    });

    const attacks = {
      deposit: () => [1n],
      depositFor: () => [user.address, 1n],
      depositWithPermit: () => [user.address, 1n, 0n, 27, ZeroHash, ZeroHash],
      withdrawDeposit: () => [far(100)],
      createEscrow: () => [requestId("x"), 1n],
      createEscrowFor: async () => [await intentOf(user), "0x"],
      createEscrowWithAllowance: () => [user.address, requestId("x"), 1n, 600],
      releaseMultiple: () => [requestId("x"), [user.address], [1n]],
      releaseBatch: () => [[]],
      cancel: () => [requestId("x")],
      withdraw: () => [user.address],
      withdrawFees: () => [user.address, 1n],
    };

    for (const [name, args] of Object.entries(attacks)) {
      it(`does not let ${name} in during a deposit or a withdrawal`, async function () {
        const data = escrow.interface.encodeFunctionData(name, await args());
        for (const outer of ["deposit", "withdrawDeposit"]) {
          await token.arm(escrow, data);
          await refused(escrow.connect(user)[outer](1n), "ReentrancyGuardReentrantCall");
        }
      });
    }

    it("holds while credits and fees go out", async function () {
      const call = (name, args) => escrow.interface.encodeFunctionData(name, args);
      const asToken = async (data) => {
        // One hop through the token's own hook makes the token the caller, outside of any call of the escrow.
        await token.arm(escrow, data);
        await token.connect(user).transfer(stranger, 1n);
      };
      await escrow.connect(user).createEscrow(requestId("paid"), far(10));
      const id = await escrow.escrowIdOf(user, requestId("paid"));
      await asToken(call("releaseMultiple", [id, [providers[0].address], [far(8)]]));
      await token.arm(escrow, call("withdrawFees", [stranger.address, far(2)]));
      await refused(escrow.connect(providers[0]).withdraw(providers[0]), "ReentrancyGuardReentrantCall");
      expect(await escrow.creditOf(providers[0])).to.equal(far(8));
    });
  });

  describe("interfaces", function () {
    startFrom(deployed);

    it("says that it is access controlled (ERC-165)", async function () {
      expect(await escrow.supportsInterface("0x7965db0b")).to.equal(true);
      expect(await escrow.supportsInterface("0xffffffff")).to.equal(false);
    });

    it("leaves tokens sent without a call out of the books", async function () {
      await token.transfer(escrow, far(5));
      expect(await escrow.totalDeposits()).to.equal(far(1_000));
      expect(await token.balanceOf(escrow)).to.equal(far(1_005));
    });
  });

  // The figures of docs/contracts.md. Instrumented code costs more, so coverage leaves them out.
  (hre.globalOptions.coverage ? describe.skip : describe)("gas in steady state", function () {
    startFrom(async function withWarmStorage() {
      const fixture = await deployed();
      const { escrow, user, settler } = fixture;
      const crowd = Array.from({ length: 100 }, (_, i) => ethers.toBeHex(i + 1000, 20));
      await escrow.connect(user).setSpendingAllowance(far(1_000));
      await escrow.connect(user).createEscrow(requestId("warm up"), far(10));
      const warm = await escrow.escrowIdOf(user, requestId("warm up"));
      await escrow.connect(settler).releaseMultiple(
        warm,
        crowd,
        crowd.map(() => UNIT),
      );
      return { ...fixture, crowd };
    });

    const gasOf = async (sending) => (await (await sending).wait()).gasUsed;
    const create = (name) => escrow.connect(user).createEscrow(requestId(name), far(1));
    const releaseTo = async (count, name = "gas") => ({
      escrowId: await escrow.escrowIdOf(user, requestId(name)),
      providers: context.crowd.slice(0, count),
      amounts: Array(count).fill(UNIT),
    });
    const spend = () => escrow.connect(settler).createEscrowWithAllowance(user, requestId("gas"), far(1), DEFAULT_LOCK);
    const submitIntent = async () => {
      const intent = await intentOf(user);
      return escrow.createEscrowFor(intent, await signIntent(user, escrow, intent));
    };

    function itCosts(what, limit, measure) {
      it(`${what}: under ${limit.toLocaleString("en")}`, async function () {
        const gas = await measure();
        if (process.env.PRINT_GAS) console.log(`      ${what}: ${gas.toLocaleString("en")}`);
        expect(gas).to.be.below(limit);
      });
    }

    itCosts("creating an escrow", 92_000n, () => gasOf(create("gas")));
    itCosts("creating one with an allowance", 104_000n, () => gasOf(spend()));
    itCosts("creating one by an intent", 125_000n, () => gasOf(submitIntent()));

    for (const [count, limit] of [
      [1, 75_000n],
      [10, 140_000n],
      [100, 790_000n],
    ]) {
      itCosts(`releasing to ${count}`, limit, async () => {
        await create("gas");
        const { escrowId, providers, amounts } = await releaseTo(count);
        return gasOf(escrow.connect(settler).releaseMultiple(escrowId, providers, amounts));
      });
    }

    itCosts("releasing one to ten, in a batch of ten", 53_000n, async () => {
      const names = Array.from({ length: 10 }, (_, i) => `gas ${i}`);
      for (const name of names) await create(name);
      const releases = await Promise.all(names.map((name) => releaseTo(10, name)));
      return (await gasOf(escrow.connect(settler).releaseBatch(releases))) / 10n;
    });

    itCosts("cancelling", 56_000n, async () => {
      await create("gas");
      return gasOf(escrow.connect(settler).cancel(await escrow.escrowIdOf(user, requestId("gas"))));
    });
  });
});
