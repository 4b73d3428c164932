import { FarLabsError, parseFar, WEI_PER_UNIT } from "farlabs";
import { far } from "@/lib/format";

export interface Read {
  units?: bigint;
  problem?: string;
}

/** An amount as it was typed, in units, or what is wrong with it; neither where there is nothing yet. */
export function readAmount(text: string, most?: { units: bigint; what: string }): Read {
  if (text.trim() === "") return {};
  try {
    const units = parseFar(text);
    if (units === 0n) return { problem: "More than nothing." };
    if (most !== undefined && units > most.units) return { problem: `${most.what} ${far(most.units)}.` };
    return { units };
  } catch (error) {
    if (!(error instanceof FarLabsError)) throw error;
    return { problem: "Write digits, and up to nine of them after a point, such as 12.5." };
  }
}

/** What the chain calls so many units. */
export function toWei(units: bigint): bigint {
  return units * WEI_PER_UNIT;
}

/** Whole units: what is less than one stays on the chain. */
export function toUnits(wei: bigint): bigint {
  return wei / WEI_PER_UNIT;
}

/** What can be taken out: no more than is spent or held by nobody, nor than lies on chain, where that is known. */
export function withdrawable(available: number, onChain: bigint | undefined): bigint {
  const free = BigInt(Math.max(0, available));
  return onChain !== undefined && onChain < free ? onChain : free;
}
