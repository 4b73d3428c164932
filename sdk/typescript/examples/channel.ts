// Paying while one reads, over a channel that was opened before (docs/developers.md, "Pay while you read").
//   FAR_GATEWAY=… FAR_API_KEY=… CHANNEL_ID=0x… CHANNEL_KEY=0x… node examples/channel.ts
import { FarLabsClient, formatFar } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { FAR_GATEWAY = "http://127.0.0.1:8000", FAR_API_KEY, FAR_MODEL = "far-demo" } = process.env;
const { CHANNEL_ID, CHANNEL_KEY } = process.env;
if (CHANNEL_ID === undefined || CHANNEL_KEY === undefined) throw new Error("set CHANNEL_ID and CHANNEL_KEY");

const client = new FarLabsClient({ url: FAR_GATEWAY, apiKey: FAR_API_KEY });
const ask = { model: FAR_MODEL, prompt: "Tell me a story.", maxTokens: 50 };

await client.lookAtChannel(CHANNEL_ID);
const quote = await client.quote(ask);
const onVoucher = client.payByVoucher({ quote, signer: privateKeySigner(CHANNEL_KEY as `0x${string}`) });
const story = client.generate({ ...ask, payment: `channel:${CHANNEL_ID}`, quote_id: quote.quote_id, onVoucher });
for await (const text of story) process.stdout.write(text);

const { promised_units } = await client.channel(CHANNEL_ID);
console.log(`\n${formatFar((await story.result()).cost_units)} FAR, ${formatFar(promised_units)} promised so far`);
