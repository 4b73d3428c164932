/** The package as others get it, against a gateway that runs: see tests/sdk/typescript/test_live.py. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AuthenticationError,
  FarLabsClient,
  ForbiddenError,
  formatFar,
  NotFoundError,
  PaymentRequiredError,
  readNodeClaim,
  signNodeClaim,
  verifyReceipts,
} from "farlabs";
import { privateKeySigner } from "farlabs/viem";

/** What the gateway's owner has set up. */
interface Stage {
  url: string;
  model: string;
  story: string;
  prices: { prompt: number; completion: number };
  user_key: `0x${string}`;
  poor_key: `0x${string}`;
  operator_key: `0x${string}`;
  provider_key: `0x${string}`;
  deposit: { key: `0x${string}`; tx: string; units: number };
  channel: { id: string; key: `0x${string}`; units: number };
  claim: { key: `0x${string}`; fragment: string };
  worker_id: string;
}

const stage = JSON.parse(process.env["FAR_STAGE"] ?? "null") as Stage;
const { url, model } = stage;
const ask = { model, prompt: "Tell me a story", maxTokens: 12 };

function clientOf(key: `0x${string}`): FarLabsClient {
  return new FarLabsClient({ url, signer: privateKeySigner(key) });
}

const user = clientOf(stage.user_key);

test("what needs nobody is told to anybody", async () => {
  const anybody = new FarLabsClient({ url });
  assert.equal((await anybody.health()).status, "alive");
  assert.equal((await anybody.ready()).database.ok, true);
  const [one] = await anybody.models();
  assert.equal(one?.id, model);
  const { nodes } = await anybody.activeNodes(model);
  assert.ok(nodes.length >= 3);
  assert.equal((await anybody.node(nodes[0]?.node_id ?? "")).node_id, nodes[0]?.node_id);
  assert.ok((await anybody.tiers()).tiers.length > 0);
  await assert.rejects(anybody.balance(), { code: "no_credential" });
});

test("a wallet signs in by itself, and out", async () => {
  const client = clientOf(stage.user_key);
  assert.ok(!client.session);
  const { wallet_address } = await client.balance();
  const session = await client.signIn();
  assert.equal(session.walletAddress, wallet_address);
  await client.signOut();
  const before = new FarLabsClient({ url, session });
  await assert.rejects(before.balance(), AuthenticationError);
  assert.equal(before.session, undefined);
  const again = new FarLabsClient({ url, signer: privateKeySigner(stage.user_key), session });
  assert.equal((await again.balance()).wallet_address, wallet_address);
  assert.notEqual(again.session?.token, session.token);
});

test("an answer comes word by word, with its bill, and its receipts prove who did the work", async () => {
  const before = await user.balance();
  const generation = user.generate(ask);
  const texts: string[] = [];
  for await (const text of generation) texts.push(text);
  assert.equal(texts.join(""), stage.story);
  const result = await generation.result();
  assert.equal(result.text, stage.story);
  assert.equal(result.request_id, generation.requestId);
  const dear = result.prompt_tokens * stage.prices.prompt + 12 * stage.prices.completion;
  assert.ok(Math.abs(result.cost_units - dear) <= 1);
  const after = await user.balance();
  assert.equal(before.available_units - after.available_units, result.cost_units);
  assert.equal(formatFar(after.available_units), String(after.available_far));
  const told = await user.receipts(result.request_id);
  const proved = await verifyReceipts(told);
  assert.deepEqual(proved.blocks, [[0, 8]]);
  assert.equal(proved.receipts.length, result.nodes_used.length);
  const state = await user.request(result.request_id);
  assert.equal(state.cost_units, result.cost_units);
  await assert.rejects(clientOf(stage.poor_key).request(result.request_id), NotFoundError);
});

test("a chat is the same, several answers are told apart, and log probabilities are kept", async () => {
  const messages = [{ role: "user", content: "Tell me a story" }] as const;
  const { text, choices, logprobs } = await user.chat({ model, messages, maxTokens: 3, n: 2, logprobs: 1 }).result();
  assert.equal(text, "Once upon a");
  assert.deepEqual(choices?.map((one) => [one.text, one.finish_reason]), [[text, "length"], [text, "length"]]);
  assert.deepEqual(logprobs?.map((one) => one.token), ["Once", " upon", " a"]);
});

test("the same name is charged once", async () => {
  const options = { ...ask, idempotencyKey: "one-order" };
  const { cost_units } = await user.generate(options).result();
  const { available_units } = await user.balance();
  await assert.rejects(user.generate(options).result(), { name: "ConflictError", code: "conflict" });
  assert.ok(cost_units > 0);
  assert.equal((await user.balance()).available_units, available_units);
});

test("a quote keeps its price", async () => {
  const quote = await user.quote(ask);
  assert.equal(quote.completion_price_units, stage.prices.completion);
  const { cost_units } = await user.generate({ ...ask, quote_id: quote.quote_id }).result();
  assert.ok(cost_units <= quote.max_cost_units);
});

test("who has no money is told how to pay", async () => {
  await assert.rejects(clientOf(stage.poor_key).generate(ask).result(), (error) => {
    assert.ok(error instanceof PaymentRequiredError);
    assert.ok(error.accepts.length > 0);
    assert.equal(error.retry, false);
    return true;
  });
});

test("what means nothing is refused with the parameter's name", async () => {
  await assert.rejects(user.generate({ ...ask, temperature: 9 }).result(), { name: "InvalidRequestError", param: "temperature" });
  await assert.rejects(user.generate({ ...ask, model: "nobody/has-it" }).result(), NotFoundError);
});

test("a key is made, used, limited by its scopes, counted and revoked", async () => {
  const { id, key } = await user.createApiKey({ name: "test", scopes: ["inference"] });
  const program = new FarLabsClient({ url, apiKey: key });
  assert.equal((await program.generate(ask).result()).text, stage.story);
  await assert.rejects(program.balance(), ForbiddenError);
  assert.ok((await user.apiKeys()).some((one) => one.id === id && one.revoked_at === null));
  const used = await user.usage({ apiKey: id });
  assert.equal(used.total.requests, 1);
  assert.match(await user.usageCsv({ apiKey: id }), /^.*model.*\n.*tiny/s);
  await user.revokeApiKey(id);
  await assert.rejects(program.generate(ask).result(), AuthenticationError);
});

test("a deposit is credited once, however often it is told", async () => {
  const client = clientOf(stage.deposit.key);
  const answer = await client.deposit(stage.deposit.tx);
  assert.equal(answer.status, "credited");
  assert.equal((await client.deposit(stage.deposit.tx)).status, "credited");
  assert.equal((await client.balance()).deposited_units, stage.deposit.units);
  assert.equal((await client.deposits({ limit: 5 })).deposits.filter((one) => one.kind === "Deposited").length, 1);
  await assert.rejects(client.deposit(`0x${"00".repeat(32)}`), { code: "deposit_unknown" });
});

test("an answer is paid over a channel while it is read, and never for more than one step ahead", async () => {
  const { id, key, units } = stage.channel;
  assert.equal((await user.lookAtChannel(id)).deposit_units, units);
  const quote = await user.quote(ask);
  const paying = { ...ask, payment: `channel:${id}`, quote_id: quote.quote_id };
  for (let answers = 1; answers <= 2; answers++) {
    const onVoucher = user.payByVoucher({ quote, signer: privateKeySigner(key) });
    const { text, cost_units } = await user.generate({ ...paying, onVoucher }).result();
    assert.equal(text, stage.story);
    const { promised_units, earned_units, step_units } = await user.channel(id);
    assert.ok(Math.abs(earned_units - answers * cost_units) <= answers);
    assert.ok(promised_units >= earned_units, `${promised_units} promised, ${earned_units} earned`);
    assert.ok(promised_units <= earned_units + step_units + answers); // a bill may round a unit off
  }
  assert.equal((await user.channels()).length, 1);
  const stranger = user.payByVoucher({ quote, signer: privateKeySigner(stage.poor_key) });
  await assert.rejects(user.generate({ ...paying, onVoucher: stranger }).result(), { code: "voucher_forged" });
  const careful = user.payByVoucher({ quote, signer: privateKeySigner(key), maxUnits: 1n });
  await assert.rejects(user.generate({ ...paying, onVoucher: careful }).result(), { code: "voucher_limit" });
  await assert.rejects(user.generate({ ...ask, payment: `channel:${id}` }).result(), { code: "voucher_needed" });
});

test("a job is handed in once, done by itself, listed, and not cancelled afterwards", async () => {
  const options = { ...ask, idempotencyKey: "one-job" };
  const { job_id } = await user.submitJob(options);
  assert.equal((await user.submitJob(options)).job_id, job_id);
  const job = await user.waitForJob(job_id);
  assert.equal(job.status, "completed");
  assert.equal(job.result?.text, stage.story);
  assert.equal((await user.jobs({ status: "completed", limit: 5 })).jobs[0]?.job_id, job_id);
  assert.equal((await user.cancelJob(job_id)).status, "completed");
  assert.deepEqual(await user.deliveries(job_id), []);
});

test("vectors come in the order of the texts", async () => {
  const { data } = await user.embeddings({ model, input: ["one", "one two three"] });
  assert.deepEqual(data.map((one) => one.index), [0, 1]);
});

test("a provider sees earnings, and nobody else's", async () => {
  const provider = clientOf(stage.provider_key);
  const rewards = await provider.rewards({ days: 7 });
  assert.ok(rewards.earned_units > 0);
  assert.ok((await provider.rewardHistory({ limit: 2, receipts: true })).lines.length > 0);
  assert.ok((await provider.providerStats()).totalTokensServed > 0);
  assert.equal((await provider.earningsHistory({ days: 3 })).length, 3);
  assert.ok((await provider.claims()).claims.length >= 0);
  const { wallet_address } = await provider.balance();
  assert.equal((await provider.nodeEarnings(wallet_address)).wallet_address, wallet_address);
  await assert.rejects(user.nodeEarnings(wallet_address));
  assert.equal((await user.rewards()).earned_units, 0);
});

test("a node is claimed with what far-node claim has printed, once", async () => {
  const signer = privateKeySigner(stage.claim.key);
  const owner = new FarLabsClient({ url, signer });
  const claim = await signNodeClaim(signer, readNodeClaim(stage.claim.fragment));
  assert.equal((await owner.claimNode(claim)).node_id, claim.node_id);
  assert.deepEqual((await owner.providerNodes()).map((one) => one.node_id), [claim.node_id]);
  await assert.rejects(owner.claimNode(claim), { name: "ConflictError", code: "proof_stale" });
});

test("operators see all, and nobody else does", async () => {
  const operator = clientOf(stage.operator_key);
  const { address } = privateKeySigner(stage.poor_key);
  assert.ok((await operator.clusterStatus()).nodes.length > 0);
  assert.equal((await operator.rebalance({ model })).applied, false);
  assert.ok((await operator.workers()).workers.length > 0);
  assert.equal((await operator.setWalletTier(address, { tier: "premium" })).tier, "premium");
  assert.ok((await operator.accountTiers()).some((one) => one.wallet_address === address));
  assert.equal((await operator.walletTier(address)).tier, "premium");
  assert.deepEqual((await operator.setPrivatePool(address, [])).members, []);
  assert.deepEqual((await operator.privatePool(address)).members, []);
  assert.equal((await clientOf(stage.poor_key).accountTier()).tier, "premium");
  const worker = { worker_id: stage.worker_id, endpoint_url: "https://worker.test/wake", payment_address: address };
  assert.equal((await operator.addWorker(worker)).worker_id, stage.worker_id);
  await operator.removeWorker(stage.worker_id);
  for (const act of [() => user.clusterStatus(), () => user.workers(), () => user.walletTier(address)]) {
    await assert.rejects(act(), ForbiddenError);
  }
});
