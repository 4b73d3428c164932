// Paying while one reads, over a channel that was opened before (docs/developers.md, "Pay while you read").
//   FAR_GATEWAY=… FAR_API_KEY=… FAR_CHANNEL=0x… CHANNEL_KEY=0x… node examples/channel.ts
import { FarLabsClient, formatFar } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { FAR_GATEWAY = "http://127.0.0.1:8000", FAR_API_KEY, FAR_MODEL = "far-demo" } = process.env;
const { FAR_CHANNEL, CHANNEL_KEY } = process.env;
if (FAR_CHANNEL === undefined || CHANNEL_KEY === undefined) throw new Error("set FAR_CHANNEL and CHANNEL_KEY");

const client = new FarLabsClient({ url: FAR_GATEWAY, apiKey: FAR_API_KEY });
const ask = { model: FAR_MODEL, prompt: "Tell me a story.", maxTokens: 50 };

await client.lookAtChannel(FAR_CHANNEL);
const quote = await client.quote(ask);
const onVoucher = client.payByVoucher({ quote, signer: privateKeySigner(CHANNEL_KEY as `0x${string}`) });
const story = client.generate({ ...ask, payment: `channel:${FAR_CHANNEL}`, quote_id: quote.quote_id, onVoucher });
for await (const text of story) process.stdout.write(text);

const { promised_units } = await client.channel(FAR_CHANNEL);
console.log(`\n${formatFar((await story.result()).cost_units)} FAR, ${formatFar(promised_units)} promised so far`);
