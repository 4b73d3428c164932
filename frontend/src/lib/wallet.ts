import { createConfig, injected, unstable_connector } from "wagmi";
import { defineChain, type Chain } from "viem";
import type { Payments } from "./gateway";

/** The chain on which a marketplace is paid, as far as wallets have to know it. */
export function chainOf({ chain_id: id }: Payments): Chain {
  const known: Record<number, { name: string; symbol: string }> = {
    56: { name: "BNB Smart Chain", symbol: "BNB" },
    97: { name: "BNB Smart Chain Testnet", symbol: "tBNB" },
    999: { name: "HyperEVM", symbol: "HYPE" },
    31337: { name: "Local chain", symbol: "ETH" },
  };
  const { name, symbol } = known[id] ?? { name: `Chain ${id}`, symbol: "ETH" };
  // The wallet reads and writes the chain for us: a page that asked a host of its own would tell it who looks at what.
  return defineChain({ id, name, nativeCurrency: { name: symbol, symbol, decimals: 18 }, rpcUrls: { default: { http: [] } } });
}

/** Wallets announce themselves (EIP-6963); whoever else is injected is taken too. */
export function walletConfig(payments: Payments) {
  const chain = chainOf(payments);
  return createConfig({
    chains: [chain],
    connectors: [injected()],
    multiInjectedProviderDiscovery: true,
    ssr: true,
    transports: { [chain.id]: unstable_connector(injected) },
  });
}
