// Signing in with a wallet, looking at the money, and making a key for a program.
//   FAR_GATEWAY=http://127.0.0.1:8000 WALLET_PRIVATE_KEY=0x… node examples/wallet.ts
import { FarLabsClient, FarLabsError, formatFar } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { FAR_GATEWAY = "http://127.0.0.1:8000", WALLET_PRIVATE_KEY } = process.env;
if (WALLET_PRIVATE_KEY === undefined) throw new Error("set WALLET_PRIVATE_KEY");

const signer = privateKeySigner(WALLET_PRIVATE_KEY as `0x${string}`);
const client = new FarLabsClient({ url: FAR_GATEWAY, signer }); // signs in when it has to, and again in time

const { available_units, chain, escrow_address } = await client.balance();
console.log(`${signer.address} has ${formatFar(available_units)} FAR; more goes to ${escrow_address} on ${chain}`);

const { id, key } = await client.createApiKey({ name: "nightly report", limits: { units_per_day: 1_000_000_000 } });
console.log(`a key for a program: ${key.slice(0, 8)}…, shown this once`);

const program = new FarLabsClient({ url: FAR_GATEWAY, apiKey: key });
await client.revokeApiKey(id);
try {
  await program.quote({ model: "any", prompt: "Hello" });
} catch (error) {
  if (!(error instanceof FarLabsError)) throw error;
  console.log(`revoked, and refused: ${error.code}`);
}
await client.signOut();
