import { expect } from "chai";
import { ethers, loadFixture, now, signPermit, splitSignature, typedDomain } from "./support.js";

const SUPPLY = ethers.parseEther("1000000000");
const AMOUNT = ethers.parseEther("25");

const AUTHORIZATION = [
  { name: "from", type: "address" },
  { name: "to", type: "address" },
  { name: "value", type: "uint256" },
  { name: "validAfter", type: "uint256" },
  { name: "validBefore", type: "uint256" },
  { name: "nonce", type: "bytes32" },
];
const CANCEL = [
  { name: "authorizer", type: "address" },
  { name: "nonce", type: "bytes32" },
];

async function deploy() {
  const [holder, receiver, stranger] = await ethers.getSigners();
  const token = await ethers.deployContract("FarToken", [holder, SUPPLY]);
  const domain = await typedDomain(token);
  return { token, domain, holder, receiver, stranger };
}

async function authorization({ holder, receiver }, changes = {}) {
  const time = await now();
  return {
    from: holder.address,
    to: receiver.address,
    value: AMOUNT,
    validAfter: time - 10,
    validBefore: time + 1000,
    nonce: ethers.hexlify(ethers.randomBytes(32)),
    ...changes,
  };
}

async function signed(signer, domain, type, message) {
  const fields = type === "CancelAuthorization" ? CANCEL : AUTHORIZATION;
  const signature = await signer.signTypedData(domain, { [type]: fields }, message);
  return [...Object.values(message), ...splitSignature(signature)];
}

describe("FarToken", function () {
  let context, token, domain, holder, receiver, stranger;

  beforeEach(async function () {
    context = await loadFixture(deploy);
    ({ token, domain, holder, receiver, stranger } = context);
  });

  it("is FAR, with 18 decimals", async function () {
    expect(await token.symbol()).to.equal("FAR");
    expect(await token.name()).to.equal("Far Mesh");
    expect(await token.decimals()).to.equal(18n);
  });

  it("gives the whole supply to the holder, and has no way to make more", async function () {
    expect(await token.totalSupply()).to.equal(SUPPLY);
    expect(await token.balanceOf(holder)).to.equal(SUPPLY);
    const names = token.interface.fragments.filter((f) => f.type === "function").map((f) => f.name);
    expect(names.filter((name) => /mint|burn|owner|pause|upgrade/i.test(name))).to.deep.equal([]);
  });

  it("approves by an EIP-2612 signature", async function () {
    const permit = await signPermit(token, holder, stranger.address, AMOUNT);
    await token.connect(stranger).permit(holder, stranger, AMOUNT, ...permit);
    expect(await token.allowance(holder, stranger)).to.equal(AMOUNT);
  });

  describe("EIP-3009", function () {
    it("transfers by a signature that anybody may submit", async function () {
      const message = await authorization(context);
      const args = await signed(holder, domain, "TransferWithAuthorization", message);
      const sent = token
        .connect(stranger)
        .getFunction(
          "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
        )(...args);
      await expect(sent).to.emit(token, "AuthorizationUsed").withArgs(holder, message.nonce);
      expect(await token.balanceOf(receiver)).to.equal(AMOUNT);
      expect(await token.authorizationState(holder, message.nonce)).to.equal(true);
    });

    it("refuses a signature that was used", async function () {
      const args = await signed(holder, domain, "TransferWithAuthorization", await authorization(context));
      await token.transferWithAuthorization(...args);
      await expect(token.transferWithAuthorization(...args)).to.be.revertedWithCustomError(
        token,
        "ERC3009UsedAuthorization",
      );
    });

    it("refuses a signature of somebody else, or for another token", async function () {
      const message = await authorization(context);
      const forged = await signed(stranger, domain, "TransferWithAuthorization", message);
      await expect(token.transferWithAuthorization(...forged)).to.be.revertedWithCustomError(
        token,
        "ERC3009InvalidSignature",
      );
      const elsewhere = { ...domain, verifyingContract: stranger.address };
      const foreign = await signed(holder, elsewhere, "TransferWithAuthorization", message);
      await expect(token.transferWithAuthorization(...foreign)).to.be.revertedWithCustomError(
        token,
        "ERC3009InvalidSignature",
      );
    });

    it("refuses a signature outside its time", async function () {
      const time = await now();
      for (const window of [{ validAfter: time + 500 }, { validBefore: time }]) {
        const message = await authorization(context, window);
        const args = await signed(holder, domain, "TransferWithAuthorization", message);
        await expect(token.transferWithAuthorization(...args)).to.be.revertedWithCustomError(
          token,
          "ERC3009InvalidAuthorizationTime",
        );
      }
    });

    it("lets only the receiver use a receive authorisation", async function () {
      const message = await authorization(context);
      const args = await signed(holder, domain, "ReceiveWithAuthorization", message);
      await expect(token.connect(stranger).receiveWithAuthorization(...args)).to.be.revertedWithCustomError(
        token,
        "ERC20InvalidReceiver",
      );
      await token.connect(receiver).receiveWithAuthorization(...args);
      expect(await token.balanceOf(receiver)).to.equal(AMOUNT);
    });

    it("lets the holder take an authorisation back", async function () {
      const message = await authorization(context);
      const args = await signed(holder, domain, "TransferWithAuthorization", message);
      const { nonce } = message;
      await token.cancelAuthorization(
        ...(await signed(holder, domain, "CancelAuthorization", { authorizer: holder.address, nonce })),
      );
      await expect(token.transferWithAuthorization(...args)).to.be.revertedWithCustomError(
        token,
        "ERC3009UsedAuthorization",
      );
    });
  });
});
