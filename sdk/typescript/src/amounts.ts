/** Money is counted in whole units of 1e-9 FAR; the token itself has 18 decimal places (wei). */

import { FarLabsError } from "./errors.js";

export const UNITS_PER_FAR = 1_000_000_000n;
export const WEI_PER_UNIT = 1_000_000_000n;

/**
 * An amount as people write it, exactly: `1234567890` units are `1.23456789`.
 *
 * @throws FarLabsError `invalid_amount`: these are no whole units.
 */
export function formatFar(units: number | bigint | string): string {
  const isWhole = typeof units === "bigint" || (typeof units === "number" ? Number.isInteger(units) : /^-?\d+$/.test(units));
  if (!isWhole) throw new FarLabsError(`${units} is no whole number of units`, { code: "invalid_amount" });
  const all = BigInt(units);
  const size = all < 0n ? -all : all;
  const fraction = (size % UNITS_PER_FAR).toString().padStart(9, "0").replace(/0+$/, "");
  return `${all < 0n ? "-" : ""}${size / UNITS_PER_FAR}${fraction === "" ? "" : `.${fraction}`}`;
}

/**
 * The units of an amount as people write it.
 *
 * @throws FarLabsError `invalid_amount`: it is none, or has more than nine decimal places.
 */
export function parseFar(text: string): bigint {
  const match = /^(\d{1,30})(?:\.(\d{1,9}))?$/.exec(text.trim());
  if (match === null) {
    const message = `${text} is no amount of FAR: write digits, and up to nine after the point`;
    throw new FarLabsError(message, { code: "invalid_amount" });
  }
  return BigInt(match[1] as string) * UNITS_PER_FAR + BigInt((match[2] ?? "").padEnd(9, "0"));
}
