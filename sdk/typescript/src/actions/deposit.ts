import type { CallOptions, Transport } from "../transport.js";
import type { DepositAnswer } from "../types.js";

export interface DepositOptions extends CallOptions {
  /** By a wallet other than one's own that has paid, over the text that the refusal without it names. */
  payerSignature?: string | undefined;
}

/**
 * Have a transaction that has paid in credited. `pending`: it is too early, ask again. It counts once, however often it
 * is told.
 */
export async function deposit(
  transport: Transport,
  transaction: string,
  options: DepositOptions = {},
): Promise<DepositAnswer> {
  const { payerSignature, ...call } = options;
  const body = { tx_hash: transaction, payer_signature: payerSignature };
  const how = { method: "POST", path: "/api/account/deposit", body, repeatable: true } as const;
  return (await transport.call<DepositAnswer>({ ...call, ...how })).body;
}
