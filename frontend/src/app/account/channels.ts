import type { Channel } from "farlabs";
import { encodeAbiParameters, keccak256, toHex } from "viem";

/** `Closed` of `ChannelStatus` in the contract. */
const CLOSED = 3;

export type ChannelStanding = "open" | "closing" | "to finish" | "closed";

/** `status`: what the chain says, where it was asked: that it is closed for good nobody else tells. */
export function standingOf({ closes_at: closesAt }: Pick<Channel, "closes_at">, status: number | undefined, now: number): ChannelStanding {
  if (status === CLOSED) return "closed";
  if (closesAt === null) return "open";
  return Date.parse(closesAt) < now ? "to finish" : "closing";
}

/** What can still be promised over it. */
export function leftOf({ deposit_units: deposit, earned_units: earned }: Pick<Channel, "deposit_units" | "earned_units">): number {
  return Math.max(0, deposit - earned);
}

/** How long the operator has for redeeming the last voucher, in seconds. The contract takes 15 minutes to 30 days. */
export const DELAYS = { 900: "15 minutes", 3600: "1 hour", 86400: "1 day", 604800: "7 days" } as const;
export const USUAL_DELAY = "86400";

/** A number that this wallet has certainly not used. */
export function newSalt(): `0x${string}` {
  return toHex(crypto.getRandomValues(new Uint8Array(32)));
}

/** As `channelIdOf` of the escrow, without asking it. */
export function channelIdOf(user: `0x${string}`, salt: `0x${string}`): `0x${string}` {
  return keccak256(encodeAbiParameters([{ type: "address" }, { type: "bytes32" }], [user, salt]));
}
