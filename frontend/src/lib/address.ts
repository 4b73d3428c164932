import { getAddress, isAddress } from "viem";

/** An address of a wallet, in its EIP-55 form, or what is wrong with it; neither where there is nothing yet. */
export function readAddress(text: string): { address?: `0x${string}`; problem?: string } {
  const typed = text.trim();
  if (typed === "") return {};
  if (!/^0x[0-9a-fA-F]{40}$/.test(typed)) return { problem: "An address is 0x and 40 digits or letters from a to f." };
  if (isAddress(typed, { strict: true })) return { address: getAddress(typed) };
  return { problem: "Its checksum (EIP-55) is wrong: a letter is mistyped, or its case. Copy it again." };
}
