/** Signers made with viem, which is needed for these alone. */

import { privateKeyToAccount } from "viem/accounts";
import type { Signer, TypedData } from "./signer.js";

/** The wallet of a private key: for servers and scripts. Never put a key into a page. */
export function privateKeySigner(key: `0x${string}`): Signer {
  const account = privateKeyToAccount(key);
  return {
    address: account.address,
    signMessage: ({ message }) => account.signMessage({ message }),
    signTypedData: (data) => account.signTypedData(data as never),
  };
}

/** What of a wallet client (or of one of wagmi's) is needed. */
export interface WalletClientLike {
  signMessage(parameters: { account: `0x${string}`; message: string }): Promise<`0x${string}`>;
  signTypedData(parameters: never): Promise<`0x${string}`>;
}

/** The wallet in a browser, by a client of viem's or wagmi's. */
export function walletClientSigner(client: WalletClientLike, address: `0x${string}`): Signer {
  return {
    address,
    signMessage: ({ message }) => client.signMessage({ account: address, message }),
    signTypedData: (data: TypedData) => client.signTypedData({ account: address, ...data } as never),
  };
}
