/** What pages say of a chain. Nothing here asks one. */

/** Where people look transactions up, by the chain's CAIP-2 name. A link that is followed; no page asks these by itself. */
const EXPLORERS: Readonly<Record<string, (hash: string) => string>> = {
  "eip155:56": (hash) => `https://bscscan.com/tx/${hash}`,
  "eip155:97": (hash) => `https://testnet.bscscan.com/tx/${hash}`,
  "eip155:999": (hash) => `https://hyperevmscan.io/tx/${hash}`,
  "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": (hash) => `https://explorer.solana.com/tx/${hash}`,
};

/** The page of a transaction; undefined where the chain has no explorer that we know, as a local one. */
export function transactionUrl(chain: string | undefined, hash: string): string | undefined {
  return chain === undefined ? undefined : EXPLORERS[chain]?.(encodeURIComponent(hash));
}

/** A fee in wei for eyes: `0.000042 BNB`. Never shown as nothing where it is something. */
export function gas(wei: bigint, symbol: string): string {
  const millionths = wei / 10n ** 12n;
  if (millionths === 0n) return wei === 0n ? `0 ${symbol}` : `less than 0.000001 ${symbol}`;
  const text = (millionths % 1_000_000n).toString().padStart(6, "0").replace(/0+$/, "");
  return `${millionths / 1_000_000n}${text === "" ? "" : `.${text}`} ${symbol}`;
}
