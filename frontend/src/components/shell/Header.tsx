"use client";

import Link from "next/link";
import { usePathname } from "next/navigation";
import { ThemeSwitch } from "./ThemeSwitch";
import { WalletButton } from "./WalletButton";

const PAGES = [
  { href: "/", name: "Network" },
  { href: "/playground", name: "Playground" },
  { href: "/gpu/distributed", name: "Provide" },
  { href: "/provider/dashboard", name: "Earnings" },
  { href: "/account", name: "Account" },
] as const;

export function Header() {
  const path = usePathname();
  return (
    <header className="z-40 border-b border-line bg-surface/95 backdrop-blur sm:sticky sm:top-0">
      <div className="mx-auto flex max-w-6xl flex-wrap items-center gap-x-6 gap-y-2 px-4 py-3 sm:px-6">
        <Link href="/" className="flex items-center gap-2 font-semibold">
          <Mark />
          Far Mesh
        </Link>
        <nav aria-label="Pages" className="order-last -mx-1 flex w-full justify-between overflow-x-auto sm:order-none sm:w-auto sm:gap-1">
          {PAGES.map(({ href, name }) => (
            <Link
              key={href}
              href={href}
              aria-current={path === href ? "page" : undefined}
              className="rounded-md px-1 py-2 text-[0.8125rem] text-soft sm:px-3 sm:text-sm hover:bg-raised hover:text-ink aria-[current=page]:bg-raised aria-[current=page]:text-ink"
            >
              {name}
            </Link>
          ))}
        </nav>
        <div className="ml-auto flex items-center gap-2">
          <ThemeSwitch />
          <WalletButton />
        </div>
      </div>
    </header>
  );
}

/** Nodes on a ring, one of them lit. */
function Mark() {
  const points = [0, 1, 2, 3, 4, 5].map((step) => [12 + 8 * Math.cos((step * Math.PI) / 3), 12 + 8 * Math.sin((step * Math.PI) / 3)]);
  return (
    <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" className="text-brand-soft">
      <circle cx="12" cy="12" r="8" fill="none" stroke="currentColor" strokeOpacity="0.4" />
      {points.map(([x, y], step) => (
        <circle key={step} cx={x?.toFixed(2)} cy={y?.toFixed(2)} r={step === 5 ? 3 : 2} fill="currentColor" />
      ))}
    </svg>
  );
}
