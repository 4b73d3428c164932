// Pure decisions of a deployment: the terms of each network, and who may hold which role.
import { getAddress, parseEther, ZeroAddress } from "ethers";

const DAY = 24 * 60 * 60;

const COMMON = {
  supply: parseEther("1000000000"),
  feeBps: 2000,
  releaseCapPerDay: parseEther("10000000"),
  unbondingPeriod: 14 * DAY,
  vetoWindow: 7 * DAY,
  maxSlashBps: 3000,
};

/** `isPublic`: strangers' money will lie there, so every role needs a holder of its own. */
export const NETWORKS = {
  local: { ...COMMON, adminDelay: 0, isPublic: false },
  bscTestnet: { ...COMMON, chainId: 97, adminDelay: DAY, isPublic: true },
  bsc: { ...COMMON, chainId: 56, adminDelay: 3 * DAY, isPublic: true },
};

/** Role → the variable that names its holder. `holder` receives the whole supply of FAR. */
export const ROLE_VARIABLES = {
  holder: "DEPLOY_HOLDER",
  admin: "DEPLOY_ADMIN",
  settler: "DEPLOY_SETTLER",
  pauser: "DEPLOY_PAUSER",
  treasurer: "DEPLOY_TREASURER",
  slasher: "DEPLOY_SLASHER",
  vetoer: "DEPLOY_VETOER",
};

/** Pairs of which one is there to stop the other. */
const APART = [
  ["admin", "settler"],
  ["pauser", "settler"],
  ["slasher", "vetoer"],
];

/**
 * The holders of all roles, from environment variables; on a network that is not public, `deployer` where none is named.
 * @throws Error what is missing or may not be, with the name of the variable
 */
export function holdersFrom(environment, { isPublic }, deployer) {
  const holders = {};
  for (const [role, variable] of Object.entries(ROLE_VARIABLES)) {
    const given = environment[variable] ?? (isPublic ? undefined : deployer);
    if (!given) throw new Error(`${variable} is not set: who is the ${role}?`);
    holders[role] = addressOf(given, variable);
    if (isPublic && holders[role] === getAddress(deployer)) {
      throw new Error(`${variable} is the deploying key; a key that lies on a build machine holds no role`);
    }
  }
  if (isPublic) {
    for (const [one, two] of APART) {
      if (holders[one] === holders[two]) {
        throw new Error(`${ROLE_VARIABLES[one]} and ${ROLE_VARIABLES[two]} are the same; one is there to stop the other`);
      }
    }
  }
  return holders;
}

function addressOf(text, variable) {
  let address;
  try {
    address = getAddress(text);
  } catch {
    throw new Error(`${variable} is not an address with a good checksum: ${text}`);
  }
  if (address === ZeroAddress) throw new Error(`${variable} is the zero address`);
  return address;
}
