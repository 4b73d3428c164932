import type { ButtonHTMLAttributes } from "react";

const KINDS = {
  primary: "bg-brand text-brand-ink hover:opacity-90",
  quiet: "border border-line bg-surface text-ink hover:bg-raised",
  danger: "border border-bad text-bad hover:bg-raised",
} as const;

export type ButtonKind = keyof typeof KINDS;

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: ButtonKind;
}

export function Button({ kind = "primary", className = "", type = "button", ...rest }: ButtonProps) {
  return <button type={type} className={buttonLook(kind, className)} {...rest} />;
}

export function buttonLook(kind: ButtonKind, more = ""): string {
  return `inline-flex min-h-10 items-center justify-center gap-2 rounded-md px-4 py-2 text-sm font-medium disabled:opacity-60 ${KINDS[kind]} ${more}`;
}
