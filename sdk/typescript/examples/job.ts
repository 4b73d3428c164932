// An answer that nobody waits for: a job, whose end a signed message tells.
//   FAR_GATEWAY=… WALLET_PRIVATE_KEY=0x… HOOK_URL=https://… PORT=8080 node examples/job.ts
import { createServer } from "node:http";
import { buffer } from "node:stream/consumers";
import { FarLabsClient, verifyWebhook, WebhookError } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { FAR_GATEWAY = "http://127.0.0.1:8000", FAR_MODEL = "far-demo", WALLET_PRIVATE_KEY } = process.env;
const { PORT = "8080", HOOK_URL = `http://127.0.0.1:${PORT}/` } = process.env;
if (WALLET_PRIVATE_KEY === undefined) throw new Error("set WALLET_PRIVATE_KEY");

const signer = privateKeySigner(WALLET_PRIVATE_KEY as `0x${string}`);
const client = new FarLabsClient({ url: FAR_GATEWAY, signer });
const { secret } = await client.webhookSecret(); // keep it: it is told this once

const server = createServer(async (request, response) => {
  try {
    const message = await verifyWebhook({ secret, headers: request.headers, body: await buffer(request) });
    response.writeHead(204).end();
    console.log(`${message.type}: ${message.data.job_id}`);
    server.close();
  } catch (error) {
    if (!(error instanceof WebhookError)) throw error;
    response.writeHead(400).end();
  }
}).listen(Number(PORT));

const { job_id } = await client.submitJob({
  model: FAR_MODEL,
  prompt: "Tell me a story.",
  maxTokens: 50,
  webhook: { url: HOOK_URL },
});
const job = await client.waitForJob(job_id);
console.log(`${job.status}: ${job.result?.text}`);
