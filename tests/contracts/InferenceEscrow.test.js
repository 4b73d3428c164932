import { expect } from "chai";
import {
  admin,
  context,
  escrow,
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
} from "./stage.js";
import {
  books,
  DAY,
  deployed,
  deployEscrow,
  ethers,
  far,
  FEE_BPS,
  intentOf,
  namedSigners,
  requestId,
  time,
  UNIT,
} from "./support.js";

const { MaxUint256, ZeroAddress, ZeroHash } = ethers;

describe("InferenceEscrow", function () {
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
});
