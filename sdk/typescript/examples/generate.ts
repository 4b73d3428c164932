// An answer as it comes, what it cost, and the proof of who did the work.
//   FAR_GATEWAY=http://127.0.0.1:8000 FAR_API_KEY=sk-far-… node examples/generate.ts
import { FarLabsClient, formatFar, verifyReceipts } from "farlabs";

const { FAR_GATEWAY = "http://127.0.0.1:8000", FAR_API_KEY, FAR_MODEL } = process.env;
const client = new FarLabsClient({ url: FAR_GATEWAY, apiKey: FAR_API_KEY });

const model = FAR_MODEL ?? (await client.models()).find((one) => one.available)?.id;
if (model === undefined) throw new Error("no model can be had now");

const story = client.chat({
  model,
  messages: [{ role: "user", content: "Tell me a story." }],
  maxTokens: 50,
  signal: AbortSignal.timeout(60_000),
});
for await (const text of story) process.stdout.write(text);

const { request_id, completion_tokens, cost_units, nodes_used } = await story.result();
console.log(`\n${completion_tokens} tokens from ${nodes_used.length} nodes for ${formatFar(cost_units)} FAR`);

const { blocks, tokenLayers } = await verifyReceipts(await client.receipts(request_id));
console.log(`signed for: ${tokenLayers} token-layers of blocks ${blocks.map(([first, end]) => `${first}:${end}`).join(", ")}`);
