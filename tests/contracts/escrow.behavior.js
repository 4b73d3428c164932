// Promises that several functions of the escrow make, written once.
import { expect } from "chai";
import { ethers, requestId, Status, time } from "./support.js";

/** `create(context, {name, amount})` makes an escrow of `user`, out of the user's deposit. */
export function shouldLockMoney(create, getContext) {
  it("moves the amount from the deposit to the escrow, and nothing else", async function () {
    const context = getContext();
    const { escrow, user } = context;
    const before = await escrow.depositOf(user);
    await create(context, { name: "a", amount: 40n });
    expect(await escrow.depositOf(user)).to.equal(before - 40n);
    expect(await escrow.totalDeposits()).to.equal(before - 40n);
    expect(await escrow.totalEscrowed()).to.equal(40n);
  });

  it("writes down whose it is, how much, until when and at what fee", async function () {
    const context = getContext();
    const { escrow, user } = context;
    const id = await escrow.escrowIdOf(user, requestId("a"));
    const creating = await create(context, { name: "a", amount: 40n });
    const made = await escrow.escrowOf(id);
    expect(made.user).to.equal(user.address);
    expect(made.amount).to.equal(40n);
    expect(made.feeBps).to.equal(2000n);
    expect(made.status).to.equal(Status.Open);
    await expect(creating)
      .to.emit(escrow, "EscrowCreated")
      .withArgs(id, requestId("a"), user, 40n, made.deadline, 2000n);
  });

  it("refuses nothing at all, and more than the deposit", async function () {
    const context = getContext();
    const { escrow, user } = context;
    await expect(create(context, { name: "a", amount: 0n })).to.be.revertedWithCustomError(escrow, "EscrowZeroAmount");
    const available = await escrow.depositOf(user);
    await expect(create(context, { name: "a", amount: available + 1n }))
      .to.be.revertedWithCustomError(escrow, "EscrowInsufficientDeposit")
      .withArgs(user, available, available + 1n);
  });

  it("never uses a request id of the user twice, open or closed", async function () {
    const context = getContext();
    const { escrow, user, settler } = context;
    const id = await escrow.escrowIdOf(user, requestId("a"));
    await create(context, { name: "a", amount: 40n });
    await expect(create(context, { name: "a", amount: 1n, again: true }))
      .to.be.revertedWithCustomError(escrow, "EscrowAlreadyExists")
      .withArgs(id, Status.Open);
    await escrow.connect(settler).cancel(id);
    await expect(create(context, { name: "a", amount: 1n, again: true }))
      .to.be.revertedWithCustomError(escrow, "EscrowAlreadyExists")
      .withArgs(id, Status.Cancelled);
  });

  it("cannot be blocked by a stranger who uses the same request id", async function () {
    const context = getContext();
    const { escrow, user, other } = context;
    await escrow.connect(other).deposit(10n);
    await escrow.connect(other).createEscrow(requestId("a"), 10n);
    await create(context, { name: "a", amount: 40n });
    expect((await escrow.escrowOf(await escrow.escrowIdOf(user, requestId("a")))).amount).to.equal(40n);
    expect((await escrow.escrowOf(await escrow.escrowIdOf(other, requestId("a")))).amount).to.equal(10n);
  });
}

/** `create(context, lockSeconds)` makes an escrow with a lock of the caller's choice. */
export function shouldBoundTheLock(create, getContext) {
  const MINUTE = 60;
  for (const lock of [5 * MINUTE, 24 * 60 * MINUTE]) {
    it(`allows a lock of ${lock / MINUTE} minutes`, async function () {
      const context = getContext();
      const { blockNumber } = await (await create(context, lock)).wait();
      const { timestamp } = await ethers.provider.getBlock(blockNumber);
      const [created] = await context.escrow.queryFilter("EscrowCreated", blockNumber);
      expect(created.args.deadline).to.equal(BigInt(timestamp + lock));
    });
  }
  for (const lock of [0, 5 * MINUTE - 1, 24 * 60 * MINUTE + 1, 2 ** 32 - 1]) {
    it(`refuses a lock of ${lock} seconds`, async function () {
      const context = getContext();
      await expect(create(context, lock))
        .to.be.revertedWithCustomError(context.escrow, "EscrowLockOutOfRange")
        .withArgs(lock, 300, 86400);
    });
  }
}

/** `close(context, escrowId)` by the settler must find an open escrow. */
export function shouldNeedAnOpenEscrow(close, getContext) {
  const needsOpen = async (context, id, status) =>
    expect(close(context, id)).to.be.revertedWithCustomError(context.escrow, "EscrowNotOpen").withArgs(id, status);

  it("refuses an escrow that does not exist", async function () {
    await needsOpen(getContext(), requestId("nothing"), Status.None);
  });

  it("refuses an escrow that was released", async function () {
    const context = getContext();
    const { escrow, settler, id, providers } = context;
    await escrow.connect(settler).releaseMultiple(id, [providers[0]], [1n]);
    await needsOpen(context, id, Status.Released);
  });

  it("refuses an escrow that was cancelled by the settler", async function () {
    const context = getContext();
    await context.escrow.connect(context.settler).cancel(context.id);
    await needsOpen(context, context.id, Status.Cancelled);
  });

  it("refuses an escrow that was cancelled by the user", async function () {
    const context = getContext();
    await time.increaseTo(context.deadline + 1n);
    await context.escrow.connect(context.user).cancel(context.id);
    await needsOpen(context, context.id, Status.Cancelled);
  });
}
