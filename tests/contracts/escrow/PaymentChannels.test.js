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
  refused,
  settler,
  startFrom,
  stranger,
  token,
  user,
} from "../stage.js";
import {
  books,
  claimOf,
  DAY,
  deployed,
  deployEscrow,
  ethers,
  far,
  HOUR,
  now,
  requestId as saltOf,
  time,
  withChannel,
} from "../support.js";

const { ZeroAddress } = ethers;
const Channel = { None: 0n, Open: 1n, Closing: 2n, Closed: 3n };

/** `act(context)` needs the caller's own, open channel. */
function shouldBeForTheOwnerOfAnOpenChannel(act) {
  it("is only for the user whose channel it is", async function () {
    await refused(act(context, stranger), "ChannelNotOfCaller", id, stranger);
    await refused(act(context, settler), "ChannelNotOfCaller", id, settler);
    await act(context, user);
  });

  it("needs an open channel", async function () {
    await refused(act(context, user, saltOf("none")), "ChannelNotOpen", saltOf("none"), Channel.None);
    await escrow.connect(user).startClose(id);
    await refused(act(context, user), "ChannelNotOpen", id, Channel.Closing);
    await escrow.connect(settler).finishClose(id);
    await refused(act(context, user), "ChannelNotOpen", id, Channel.Closed);
  });
}

describe("PaymentChannels", function () {
  /** Redeems, as the settler, what a voucher of the channel's session key allows. */
  const redeem = async (c, totalClaimed, changes = {}) => {
    const { signer = c.session, ...rest } = changes;
    return c.escrow.connect(c.settler).redeemVouchers([await claimOf(c.escrow, signer, c.id, totalClaimed, rest)]);
  };
  const closingAt = async () => (await escrow.channelOf(id)).closesAt;

  describe("openChannel", function () {
    startFrom(deployed);

    const open = (c, { salt = "a", signer = c.other, amount = far(40), delay = HOUR, from = c.user } = {}) =>
      c.escrow.connect(from).openChannel(saltOf(salt), signer, amount, delay);

    it("moves a part of the deposit into the channel, and writes down its terms", async function () {
      const channelId = await escrow.channelIdOf(user, saltOf("a"));
      await expect(open(context))
        .to.emit(escrow, "ChannelOpened")
        .withArgs(channelId, user, other, saltOf("a"), far(40), HOUR);
      const { deposit, deposits, channels, held } = await books(context);
      expect([deposit, deposits, channels, held]).to.deep.equal([far(960), far(960), far(40), far(1_000)]);
      expect(await escrow.channelOf(channelId)).to.deep.equal([
        user.address,
        other.address,
        far(40),
        0n,
        BigInt(HOUR),
        0n,
        Channel.Open,
      ]);
    });

    it("answers with the id that channelIdOf says", async function () {
      const encoded = ethers.AbiCoder.defaultAbiCoder().encode(["address", "bytes32"], [user.address, saltOf("a")]);
      expect(await escrow.channelIdOf(user, saltOf("a"))).to.equal(ethers.keccak256(encoded));
      const answer = await escrow.connect(user).openChannel.staticCall(saltOf("a"), other, 1n, HOUR);
      expect(answer).to.equal(ethers.keccak256(encoded));
    });

    it("refuses nothing, more than the deposit, and a signer who cannot sign", async function () {
      await refused(open(context, { amount: 0n }), "EscrowZeroAmount");
      const tooMuch = far(1_000) + 1n;
      await refused(open(context, { amount: tooMuch }), "EscrowInsufficientDeposit", user, far(1_000), tooMuch);
      for (const signer of [ZeroAddress, await escrow.getAddress()]) {
        await refused(open(context, { signer }), "EscrowInvalidAddress", signer);
      }
    });

    it("allows 15 minutes to 30 days for closing", async function () {
      const [least, most] = [15 * 60, 30 * DAY];
      expect(await escrow.MIN_CLOSE_DELAY()).to.equal(least);
      expect(await escrow.MAX_CLOSE_DELAY()).to.equal(most);
      await open(context, { salt: "least", delay: least });
      await open(context, { salt: "most", delay: most });
      for (const delay of [0, least - 1, most + 1]) {
        await refused(open(context, { delay }), "ChannelCloseDelayOutOfRange", delay, least, most);
      }
    });

    it("never uses a salt of the user twice, open or closed", async function () {
      const channelId = await escrow.channelIdOf(user, saltOf("a"));
      await open(context);
      await refused(open(context), "ChannelAlreadyExists", channelId, Channel.Open);
      await escrow.connect(user).startClose(channelId);
      await escrow.connect(settler).finishClose(channelId);
      await refused(open(context), "ChannelAlreadyExists", channelId, Channel.Closed);
    });

    it("cannot be blocked by a squatter who uses the same salt", async function () {
      await escrow.connect(other).deposit(far(1));
      await open(context, { from: other, amount: far(1) });
      await open(context);
      expect((await escrow.channelOf(await escrow.channelIdOf(user, saltOf("a")))).amount).to.equal(far(40));
    });

    shouldStopWhilePaused((c) => open(c), getContext);
  });

  describe("topUp", function () {
    startFrom(withChannel);

    const topUp = (c, signer = c.user, channelId = c.id, amount = 1n) =>
      c.escrow.connect(signer).topUp(channelId, amount);

    it("moves more of the deposit into the channel", async function () {
      await expect(topUp(context, user, id, far(20)))
        .to.emit(escrow, "ChannelToppedUp")
        .withArgs(id, far(20));
      expect((await escrow.channelOf(id)).amount).to.equal(far(120));
      const { deposit, channels } = await books(context);
      expect([deposit, channels]).to.deep.equal([far(880), far(120)]);
    });

    it("makes a voucher good that was above the amount", async function () {
      await refused(redeem(context, far(110)), "ChannelAmountExceeded", id, far(100), far(110));
      await topUp(context, user, id, far(20));
      await redeem(context, far(110));
      expect(await escrow.poolBalance()).to.equal(far(110));
    });

    it("refuses nothing, and more than the deposit", async function () {
      await refused(topUp(context, user, id, 0n), "EscrowZeroAmount");
      const tooMuch = far(900) + 1n;
      await refused(topUp(context, user, id, tooMuch), "EscrowInsufficientDeposit", user, far(900), tooMuch);
    });

    shouldBeForTheOwnerOfAnOpenChannel(topUp);
    shouldStopWhilePaused((c) => topUp(c), getContext);
  });

  describe("redeemVouchers", function () {
    startFrom(withChannel);

    it("moves what was earned into the pool, and nothing else", async function () {
      await expect(redeem(context, far(30)))
        .to.emit(escrow, "VoucherRedeemed")
        .withArgs(id, far(30), far(30));
      const { deposit, channels, pool, held } = await books(context);
      expect([deposit, channels, pool, held]).to.deep.equal([far(900), far(70), far(30), far(1_000)]);
    });

    it("takes a later voucher for all there was, and pays the difference", async function () {
      await redeem(context, far(30));
      await expect(redeem(context, far(35)))
        .to.emit(escrow, "VoucherRedeemed")
        .withArgs(id, far(5), far(35));
      expect((await escrow.channelOf(id)).redeemed).to.equal(far(35));
      expect(await escrow.poolBalance()).to.equal(far(35));
    });

    it("can take less than the voucher allows, and the rest of it later", async function () {
      await redeem(context, far(30), { maxClaimableAmount: far(50) });
      expect(await escrow.poolBalance()).to.equal(far(30));
      await redeem(context, far(50));
      expect(await escrow.poolBalance()).to.equal(far(50));
    });

    it("never takes more than the voucher allows", async function () {
      const changes = { maxClaimableAmount: far(30) };
      await refused(redeem(context, far(30) + 1n, changes), "ChannelAmountExceeded", id, far(30), far(30) + 1n);
    });

    it("never takes more than lies in the channel", async function () {
      await redeem(context, far(100));
      await refused(redeem(context, far(100) + 1n), "ChannelAmountExceeded", id, far(100), far(100) + 1n);
      const most = 2n ** 128n - 1n;
      await refused(redeem(context, most), "ChannelAmountExceeded", id, far(100), most);
    });

    it("refuses a voucher that was redeemed, or is older than one that was", async function () {
      await refused(redeem(context, 0n), "ChannelNothingToRedeem", id, 0n, 0n);
      await redeem(context, far(30));
      await refused(redeem(context, far(30)), "ChannelNothingToRedeem", id, far(30), far(30));
      await refused(redeem(context, far(29)), "ChannelNothingToRedeem", id, far(30), far(29));
    });

    it("refuses the same voucher twice in one call", async function () {
      const claim = await claimOf(escrow, context.session, id, far(30));
      const twice = escrow.connect(settler).redeemVouchers([claim, claim]);
      await refused(twice, "ChannelNothingToRedeem", id, far(30), far(30));
      expect(await escrow.poolBalance()).to.equal(0n);
    });

    it("refuses a voucher that the channel's signer did not sign, the user included", async function () {
      const { session } = context;
      for (const signer of [user, settler, stranger]) {
        await refused(redeem(context, far(1), { signer }), "EscrowInvalidSignature", session.address);
      }
    });

    it("refuses a voucher whose limit was changed", async function () {
      const claim = await claimOf(escrow, context.session, id, far(30));
      const raised = { ...claim, maxClaimableAmount: far(40), totalClaimed: far(40) };
      await refused(
        escrow.connect(settler).redeemVouchers([raised]),
        "EscrowInvalidSignature",
        context.session.address,
      );
    });

    it("refuses a voucher of another channel, even one of the same signer", async function () {
      const { session } = context;
      await escrow.connect(user).openChannel(saltOf("second"), session.address, far(10), HOUR);
      const second = await escrow.channelIdOf(user, saltOf("second"));
      const claim = { ...(await claimOf(escrow, session, id, far(5))), channelId: second };
      await refused(escrow.connect(settler).redeemVouchers([claim]), "EscrowInvalidSignature", session.address);
    });

    it("refuses a voucher that was signed for another chain, contract or version", async function () {
      const twin = await deployEscrow(token, context);
      const elsewhere = [
        { chainId: 97n },
        { verifyingContract: await twin.getAddress() },
        { version: "2" },
        { name: "Far" },
      ];
      for (const domain of elsewhere) {
        await refused(redeem(context, far(1), { domain }), "EscrowInvalidSignature", context.session.address);
      }
    });

    it("refuses a signature of the wrong length", async function () {
      const claim = { channelId: id, maxClaimableAmount: 1n, totalClaimed: 1n, signature: "0x1234" };
      await refused(escrow.connect(settler).redeemVouchers([claim]), "EscrowInvalidSignature", context.session.address);
    });

    it("refuses a channel that does not exist, or is closed", async function () {
      const claim = await claimOf(escrow, context.session, saltOf("none"), 1n);
      await refused(
        escrow.connect(settler).redeemVouchers([claim]),
        "ChannelNotOpen",
        saltOf("none"),
        Channel.None,
      );
      await escrow.connect(user).startClose(id);
      await escrow.connect(settler).finishClose(id);
      await refused(redeem(context, 1n), "ChannelNotOpen", id, Channel.Closed);
    });

    it("goes on while the channel is closing, until the last second", async function () {
      await escrow.connect(user).startClose(id);
      await time.setNextBlockTimestamp(await closingAt());
      await redeem(context, far(30));
      const closesAt = await closingAt();
      await refused(redeem(context, far(31)), "ChannelDeadlinePassed", id, closesAt);
    });

    it("does all or nothing", async function () {
      await escrow.connect(user).openChannel(saltOf("second"), other, far(10), HOUR);
      const second = await escrow.channelIdOf(user, saltOf("second"));
      const good = await claimOf(escrow, context.session, id, far(5));
      const bad = await claimOf(escrow, other, second, far(11));
      await refused(
        escrow.connect(settler).redeemVouchers([good, bad]),
        "ChannelAmountExceeded",
        second,
        far(10),
        far(11),
      );
      expect((await escrow.channelOf(id)).redeemed).to.equal(0n);
      await escrow.connect(settler).redeemVouchers([good, await claimOf(escrow, other, second, far(10))]);
      expect(await escrow.poolBalance()).to.equal(far(15));
    });

    shouldBeOnlyFor(
      "SETTLER_ROLE",
      "settler",
      async (c, signer) => c.escrow.connect(signer).redeemVouchers([await claimOf(c.escrow, c.session, c.id, 1n)]),
      getContext,
    );
    shouldStopWhilePaused((c) => redeem(c, far(1)), getContext);

    it("says what a voucher is", async function () {
      expect(await escrow.VOUCHER_TYPEHASH()).to.equal(
        ethers.id("Voucher(bytes32 channelId,uint128 maxClaimableAmount)"),
      );
    });

    describe("of a signer that is a contract", function () {
      startFrom(async function withContractSigner() {
        const fixture = await deployed();
        const wallet = await ethers.deployContract("ContractWallet", [fixture.other]);
        await fixture.escrow.connect(fixture.user).openChannel(saltOf("wallet"), wallet, far(10), HOUR);
        const channelId = await fixture.escrow.channelIdOf(fixture.user, saltOf("wallet"));
        return { ...fixture, wallet, session: fixture.other, id: channelId };
      });

      it("asks the contract (EIP-1271)", async function () {
        await redeem(context, far(1));
        expect(await escrow.poolBalance()).to.equal(far(1));
        await refused(redeem(context, far(2), { signer: stranger }), "EscrowInvalidSignature", context.wallet);
      });

      it("refuses what the contract refuses now, whatever it said before", async function () {
        for (const answer of [1n, 2n]) {
          await context.wallet.setAnswer(answer);
          await refused(redeem(context, far(2)), "EscrowInvalidSignature", context.wallet);
        }
      });
    });
  });

  describe("startClose", function () {
    startFrom(withChannel);

    const start = (c, signer = c.user, channelId = c.id) => c.escrow.connect(signer).startClose(channelId);

    it("starts the delay that was agreed, and moves nothing", async function () {
      const before = await books(context);
      const starting = await start(context);
      const closesAt = (await now()) + HOUR;
      await expect(starting).to.emit(escrow, "ChannelClosing").withArgs(id, closesAt);
      expect(await closingAt()).to.equal(closesAt);
      expect((await escrow.channelOf(id)).status).to.equal(Channel.Closing);
      expect(await books(context)).to.deep.equal(before);
    });

    shouldBeForTheOwnerOfAnOpenChannel(start);
    shouldWorkWhilePaused((c) => start(c), getContext);
  });

  describe("finishClose", function () {
    startFrom(async function withClosingChannel() {
      const fixture = await withChannel();
      await redeem(fixture, far(30));
      await fixture.escrow.connect(fixture.user).startClose(fixture.id);
      const { closesAt } = await fixture.escrow.channelOf(fixture.id);
      return { ...fixture, deadline: closesAt };
    });

    const finish = (c, signer = c.user) => c.escrow.connect(signer).finishClose(c.id);

    it("returns what is left to the user, whoever calls it after the delay", async function () {
      await time.increaseTo(context.deadline + 1n);
      await expect(finish(context, stranger)).to.emit(escrow, "ChannelClosed").withArgs(id, far(70));
      const { deposit, channels, pool, held } = await books(context);
      expect([deposit, channels, pool, held]).to.deep.equal([far(970), 0n, far(30), far(1_000)]);
      expect(await escrow.depositOf(stranger)).to.equal(0n);
      expect((await escrow.channelOf(id)).status).to.equal(Channel.Closed);
    });

    it("is closed to the user in the last second of the delay, and open in the next", async function () {
      await time.setNextBlockTimestamp(context.deadline);
      await refused(finish(context), "ChannelDeadlineNotPassed", id, context.deadline);
      await time.setNextBlockTimestamp(context.deadline + 1n);
      await finish(context);
    });

    it("is open to a settler at once", async function () {
      await finish(context, settler);
      expect(await escrow.depositOf(user)).to.equal(far(970));
    });

    it("returns nothing when everything was redeemed", async function () {
      await redeem(context, far(100));
      await expect(finish(context, settler)).to.emit(escrow, "ChannelClosed").withArgs(id, 0n);
    });

    it("happens once, and only to a channel that is closing", async function () {
      await finish(context, settler);
      await refused(finish(context, settler), "ChannelNotClosing", id, Channel.Closed);
      await escrow.connect(user).openChannel(saltOf("open"), other, 1n, HOUR);
      const open = await escrow.channelIdOf(user, saltOf("open"));
      await refused(escrow.connect(settler).finishClose(open), "ChannelNotClosing", open, Channel.Open);
    });

    it("works while paused after the delay, and for nobody before it", async function () {
      await escrow.connect(pauser).pause();
      await refused(finish(context, settler), "EnforcedPause");
      await refused(finish(context), "ChannelDeadlineNotPassed", id, context.deadline);
      await time.increaseTo(context.deadline + 1n);
      await finish(context);
    });

    it("needs no operator at all", async function () {
      await escrow.connect(admin).revokeRole(ethers.id("SETTLER_ROLE"), settler);
      await escrow.connect(pauser).pause();
      await time.increaseTo(context.deadline + 1n);
      await finish(context);
      await escrow.connect(user).withdrawDeposit(far(970));
      expect(await token.balanceOf(user)).to.equal(far(9_970));
    });
  });
});
