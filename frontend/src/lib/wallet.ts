import { createConfig, injected, unstable_connector } from "wagmi";
import { defineChain, type Chain } from "viem";
import type { Payments } from "./gateway";

const KNOWN: Record<number, { name: string; symbol: string }> = {
  56: { name: "BNB Smart Chain", symbol: "BNB" },
  97: { name: "BNB Smart Chain Testnet", symbol: "tBNB" },
  999: { name: "HyperEVM", symbol: "HYPE" },
  31337: { name: "Local chain", symbol: "ETH" },
};

export function isKnown(chainId: number): boolean {
  return chainId in KNOWN;
}

/** The chain on which a marketplace is paid, as far as wallets have to know it. */
export function chainOf({ chain_id: id }: Pick<Payments, "chain_id">): Chain {
  const { name, symbol } = KNOWN[id] ?? { name: `Chain ${id}`, symbol: "ETH" };
  // The wallet reads and writes the chain for us: a page that asked a host of its own would tell it who looks at what.
  return defineChain({ id, name, nativeCurrency: { name: symbol, symbol, decimals: 18 }, rpcUrls: { default: { http: [] } } });
}

/**
 * Wallets announce themselves (EIP-6963); whoever else is injected is taken too. For all known chains at once: which one
 * counts is told later, and another config would be another tree of components.
 */
export function walletConfig(otherChain?: number) {
  const ids = [...Object.keys(KNOWN).map(Number), ...(otherChain === undefined ? [] : [otherChain])];
  const [first, ...rest] = ids.map((id) => chainOf({ chain_id: id })) as [Chain, ...Chain[]];
  return createConfig({
    chains: [first, ...rest],
    connectors: [injected()],
    multiInjectedProviderDiscovery: true,
    ssr: true,
    transports: Object.fromEntries(ids.map((id) => [id, unstable_connector(injected)])),
  });
}
