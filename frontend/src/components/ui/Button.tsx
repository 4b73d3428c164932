import type { ButtonHTMLAttributes } from "react";

const KINDS = {
  primary: "bg-brand text-brand-ink hover:opacity-90",
  quiet: "border border-line bg-surface text-ink hover:bg-raised",
  danger: "border border-bad text-bad hover:bg-raised",
} as const;

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: keyof typeof KINDS;
}

export function Button({ kind = "primary", className = "", type = "button", ...rest }: ButtonProps) {
  const look = "inline-flex min-h-10 items-center justify-center gap-2 rounded-md px-4 py-2 text-sm font-medium";
  return <button type={type} className={`${look} disabled:opacity-60 ${KINDS[kind]} ${className}`} {...rest} />;
}
