/** A gateway whose nodes have room for one request, which stands still: see tests/sdk/typescript/test_live.py. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FarLabsClient } from "farlabs";
import { privateKeySigner } from "farlabs/viem";

const { url, model, key } = JSON.parse(process.env["FAR_STAGE"] ?? "null") as {
  url: string;
  model: string;
  key: `0x${string}`;
};
const client = new FarLabsClient({ url, signer: privateKeySigner(key) });
const ask = { model, prompt: "Tell me a story", maxTokens: 12 };

test("who waits is told where it stands, until its turn comes", async () => {
  const first = client.generate(ask);
  const pieces = first[Symbol.asyncIterator]();
  assert.equal((await pieces.next()).value, "Once"); // it has the nodes for itself
  const onWait = ({ position }: { position: number }) => console.log(`waits at place ${position}`);
  const second = await client.generate({ ...ask, onWait }).result(); // and now tokens come
  while ((await pieces.next()).done !== true);
  assert.equal(second.text, (await first.result()).text);
});
