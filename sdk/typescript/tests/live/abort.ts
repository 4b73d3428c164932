/** A gateway whose nodes give three tokens and then stand still: see tests/sdk/typescript/test_live.py. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { FarLabsClient, type Generation, type RequestState } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { url, model, key } = JSON.parse(process.env["FAR_STAGE"] ?? "null") as {
  url: string;
  model: string;
  key: `0x${string}`;
};
const client = new FarLabsClient({ url, signer: privateKeySigner(key) });

async function ended(generation: Generation): Promise<RequestState> {
  for (;;) {
    const state = await client.request(generation.requestId ?? "");
    if (state.completed_at !== null) return state;
    await setTimeout(50);
  }
}

test("who hangs up pays for what came, and for nothing after that", async () => {
  const stop = new AbortController();
  const generation = client.generate({ model, prompt: "Tell me a story", maxTokens: 12, signal: stop.signal });
  let tokens = 0;
  await assert.rejects(
    async () => {
      for await (const _ of generation) if (++tokens === 3) stop.abort(new Error("enough"));
    },
    { message: "enough" },
  );
  assert.equal(generation.text, "Once upon a");
  console.log("hung up"); // from now on tokens come again, one by one
  const { completion_tokens, cost_units, refund_units } = await ended(generation);
  assert.ok(completion_tokens >= 3 && completion_tokens < 12, `${completion_tokens} tokens`);
  assert.ok((cost_units ?? 0) > 0 && (refund_units ?? 0) > 0);
  assert.equal((await client.balance()).held_units, 0);
});
