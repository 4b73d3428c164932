// What the contract tests share: one chain, signatures, and an escrow with somebody in each role.
import { network } from "hardhat";

export const connection = await network.create();
export const { ethers, networkHelpers } = connection;
export const { loadFixture, time } = networkHelpers;

export const HOUR = 60 * 60;
export const DAY = 24 * HOUR;
export const DEFAULT_LOCK = 30 * 60;
export const FEE_BPS = 2000n;
export const UNIT = 10n ** 9n;
export const Status = { None: 0n, Open: 1n, Released: 2n, Cancelled: 3n };

export const far = (amount) => ethers.parseEther(String(amount));
export const requestId = (name) => ethers.id(name);
export const now = () => time.latest();

/** The rule of the contract in integers of another language. */
export const feeOn = (total, feeBps) => ((total * feeBps) / (10_000n - feeBps) / UNIT) * UNIT;

export async function typedDomain(contract) {
  const [, name, version, chainId, verifyingContract] = await contract.eip712Domain();
  return { name, version, chainId, verifyingContract };
}

export function splitSignature(signature) {
  const { v, r, s } = ethers.Signature.from(signature);
  return [v, r, s];
}

/** @returns deadline, v, r, s */
export async function signPermit(token, owner, spender, value) {
  const deadline = (await now()) + DAY;
  const types = {
    Permit: [
      { name: "owner", type: "address" },
      { name: "spender", type: "address" },
      { name: "value", type: "uint256" },
      { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
    ],
  };
  const nonce = await token.nonces(owner);
  const message = { owner: owner.address, spender, value, nonce, deadline };
  return [deadline, ...splitSignature(await owner.signTypedData(await typedDomain(token), types, message))];
}

const VOUCHER = {
  Voucher: [
    { name: "channelId", type: "bytes32" },
    { name: "maxClaimableAmount", type: "uint128" },
  ],
};

/** A claim of `totalClaimed` by a voucher of `maxClaimableAmount`, which is the same unless said otherwise. */
export async function claimOf(escrow, signer, channelId, totalClaimed, changes = {}) {
  const { maxClaimableAmount = totalClaimed, domain = {} } = changes;
  const fullDomain = { ...(await typedDomain(escrow)), ...domain };
  const signature = await signer.signTypedData(fullDomain, VOUCHER, { channelId, maxClaimableAmount });
  return { channelId, maxClaimableAmount, totalClaimed, signature };
}

const INTENT = {
  EscrowIntent: [
    { name: "user", type: "address" },
    { name: "requestId", type: "bytes32" },
    { name: "maxAmount", type: "uint256" },
    { name: "lockSeconds", type: "uint32" },
    { name: "maxFeeBps", type: "uint16" },
    { name: "nonce", type: "uint256" },
    { name: "validUntil", type: "uint64" },
  ],
};

export async function intentOf(user, changes = {}) {
  return {
    user: await ethers.resolveAddress(user),
    requestId: requestId("intended"),
    maxAmount: far(50),
    lockSeconds: 600,
    maxFeeBps: 2000,
    nonce: 7n,
    validUntil: (await now()) + DAY,
    ...changes,
  };
}

export async function signIntent(signer, escrow, intent, changedDomain = {}) {
  return signer.signTypedData({ ...(await typedDomain(escrow)), ...changedDomain }, INTENT, intent);
}

export async function namedSigners() {
  const names = ["deployer", "admin", "settler", "pauser", "treasurer", "user", "other", "stranger"];
  const signers = await ethers.getSigners();
  const named = Object.fromEntries(names.map((name, i) => [name, signers[i]]));
  return { ...named, providers: signers.slice(names.length, names.length + 3) };
}

export async function deployEscrow(token, roles, changes = {}) {
  const { feeBps = FEE_BPS, cap = far(1_000_000), adminDelay = DAY } = changes;
  const { admin, settler, pauser, treasurer } = roles;
  return ethers.deployContract("InferenceEscrow", [token, adminDelay, admin, settler, pauser, treasurer, feeBps, cap]);
}

/** An escrow of FAR in which `user` has 1000 deposited and as many tokens more approved. */
export async function deployed() {
  const signers = await namedSigners();
  const { deployer, user, other } = signers;
  const token = await ethers.deployContract("FarToken", [deployer, far(1_000_000_000)]);
  const escrow = await deployEscrow(token, signers);
  for (const account of [user, other]) {
    await token.transfer(account, far(10_000));
    await token.connect(account).approve(escrow, far(2_000));
  }
  await escrow.connect(user).deposit(far(1_000));
  return { token, escrow, subject: escrow, ...signers };
}

/** With an open escrow of 100 FAR made by the user. */
export async function withEscrow() {
  const context = await deployed();
  const { escrow, user } = context;
  await escrow.connect(user).createEscrow(requestId("served"), far(100));
  const id = await escrow.escrowIdOf(user, requestId("served"));
  const { deadline } = await escrow.escrowOf(id);
  return { ...context, id, deadline };
}

/** With the same escrow made out of a spending allowance of 300 FAR. */
export async function withAllowanceEscrow() {
  const context = await deployed();
  const { escrow, user, settler } = context;
  await escrow.connect(user).setSpendingAllowance(far(300));
  await escrow.connect(settler).createEscrowWithAllowance(user, requestId("served"), far(100), DEFAULT_LOCK);
  const id = await escrow.escrowIdOf(user, requestId("served"));
  const { deadline } = await escrow.escrowOf(id);
  return { ...context, id, deadline };
}

/** With an open channel of 100 FAR of the user, whose vouchers a session key signs. */
export async function withChannel() {
  const context = await deployed();
  const { escrow, user } = context;
  const session = ethers.Wallet.createRandom();
  await escrow.connect(user).openChannel(requestId("channel"), session.address, far(100), HOUR);
  return { ...context, session, id: await escrow.channelIdOf(user, requestId("channel")) };
}

/** With 60 FAR in the pool, redeemed from a channel, and a spending allowance of 300 FAR. */
export async function withPool() {
  const context = await withChannel();
  const { escrow, settler, user, session, id } = context;
  await escrow.connect(settler).redeemVouchers([await claimOf(escrow, session, id, far(60))]);
  await escrow.connect(user).setSpendingAllowance(far(300));
  return context;
}

export const NOBODY = { users: [], amounts: [] };

const leafOf = ([provider, cumulative]) =>
  ethers.keccak256(
    ethers.keccak256(ethers.AbiCoder.defaultAbiCoder().encode(["address", "uint256"], [provider, cumulative])),
  );
const parentOf = (one, two) => ethers.keccak256(ethers.concat(one < two ? [one, two] : [two, one]));

/** A Merkle tree over `[provider, cumulative]` as the contract wants it. `proofOf(i)` proves the i-th line. */
export function payoutTree(lines) {
  const levels = [lines.map(leafOf)];
  while (levels.at(-1).length > 1) {
    const level = levels.at(-1);
    const parents = [];
    for (let i = 0; i < level.length; i += 2) {
      parents.push(i + 1 < level.length ? parentOf(level[i], level[i + 1]) : level[i]);
    }
    levels.push(parents);
  }
  const proofOf = (i) => levels.map((level, depth) => level[(i >> depth) ^ 1]).filter((node) => node !== undefined);
  return { root: levels.at(-1)[0], proofOf };
}

/** Everything that can be said about where the money is. */
export async function books({ escrow, token, user, providers }) {
  const [deposit, held, deposits, escrowed, channels, pool, reserved, credits, fees, ...earned] = await Promise.all([
    escrow.depositOf(user),
    token.balanceOf(escrow),
    escrow.totalDeposits(),
    escrow.totalEscrowed(),
    escrow.totalInChannels(),
    escrow.poolBalance(),
    escrow.totalReserved(),
    escrow.totalCredits(),
    escrow.feesAccrued(),
    ...providers.map((provider) => escrow.creditOf(provider)),
  ]);
  return { deposit, held, deposits, escrowed, channels, pool, reserved, credits, fees, earned };
}
