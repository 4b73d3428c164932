import Link from "next/link";
import type { ComponentProps } from "react";
import { buttonLook, type ButtonKind } from "./Button";

/** A link to another page that looks like a button. */
export function ButtonLink({ kind = "primary", className = "", ...rest }: ComponentProps<typeof Link> & { kind?: ButtonKind }) {
  return <Link className={buttonLook(kind, className)} {...rest} />;
}
