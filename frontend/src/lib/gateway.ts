import { createTransport, health, type Health, type Transport } from "farlabs";

/** The gateway that serves this page. */
export function gatewayUrl(): string {
  return typeof window === "undefined" ? "http://localhost" : window.location.origin;
}

/** For what nobody needs to know who asks. */
export function publicTransport(): Transport {
  return createTransport({ url: gatewayUrl() });
}

export type Payments = Health["payments"];

export async function payments(): Promise<Payments> {
  return (await health(publicTransport())).payments;
}
