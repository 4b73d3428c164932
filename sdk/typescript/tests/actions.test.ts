/** Every action asks for something that the gateway's document has, by the names that it has there. */

import { readFileSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import * as sdk from "../src/index.js";
import { fixtures } from "./fixtures.js";
import { signInMessage } from "./server.js";

interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
}

interface Operation {
  parameters?: { in: string; name: string; required?: boolean }[];
  requestBody?: { content: { "application/json": { schema: Schema } } };
  responses: Record<string, { content?: Record<string, unknown> }>;
  security?: unknown[];
}

interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

const document = JSON.parse(readFileSync(new URL("../../openapi.json", import.meta.url), "utf8")) as Document;
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ name: `${method.toUpperCase()} ${path}`, path, method, operation })),
);

type Client = sdk.FarLabsClient;

const wallet = sdkWallet();
const node = { node_id: "12D3", wallet_address: wallet, gateway: "x", chain_id: 1, nonce: 1, deadline: 1 };
const claim = { ...node, node_signature: "x", signature: "x" };
const asked: Partial<sdk.GenerateOptions> = {
  tier: "standard",
  temperature: 0.5,
  stop: ["x"],
  tools: [{ type: "function", function: { name: "f" } }],
  tool_choice: "auto",
  response_format: { type: "json_object" },
};
const messages = [{ role: "user", content: "Hello" }] as const;
const voucher = fixtures.vouchers[0]!.voucher;

/** How each action is called, with all that it takes. */
const calls: Record<string, (client: Client) => unknown> = {
  accountTier: (client) => client.accountTier(),
  accountTiers: (client) => client.accountTiers(),
  activeNodes: (client) => client.activeNodes("org/a model", { location: [1, 2], maxDistanceKm: 3, limit: 4, offset: 5 }),
  addWorker: (client) =>
    client.addWorker({ worker_id: "w", endpoint_url: "https://x.test", payment_address: wallet, vram_mb: 1, model_id: "m" }),
  apiKeys: (client) => client.apiKeys(),
  balance: (client) => client.balance(),
  batch: (client) => client.batch(7, { limit: 1, cursor: "c" }),
  cancelJob: (client) => client.cancelJob("job_1"),
  channel: (client) => client.channel("0x01"),
  channels: (client) => client.channels(),
  chat: (client) => client.chat({ ...asked, model: "m", messages, maxTokens: 2, idempotencyKey: "k" }).result(),
  claimNode: (client) => client.claimNode(claim),
  claims: (client) => client.claims({ limit: 1, cursor: "c" }),
  clusterStatus: (client) => client.clusterStatus(),
  createApiKey: (client) =>
    client.createApiKey({ name: "n", scopes: ["inference"], expires_at: null, limits: { units_per_day: 1 } }),
  deliveries: (client) => client.deliveries("job_1"),
  deposit: (client) => client.deposit("0x01", { payerSignature: "0x02" }),
  deposits: (client) => client.deposits({ limit: 1, before: 2 }),
  earningsHistory: (client) => client.earningsHistory({ days: 3 }),
  embeddings: (client) =>
    client.embeddings({ model: "m", input: ["a"], pooling: "mean", encoding_format: "float", quote_id: "q", tier: "standard" }),
  generate: (client) =>
    client.generate({ model: "m", prompt: "x", raw: true, n: 2, logprobs: 1, seed: 1, quote_id: "q", payment: "auto" }).result(),
  health: (client) => client.health(),
  howToServe: (client) => client.howToServe(),
  jobResult: (client) => client.jobResult("job_1", { wait: 1 }),
  jobs: (client) => client.jobs({ status: "queued", limit: 1, cursor: "c" }),
  listPrices: (client) => client.listPrices(),
  lookAtChannel: (client) => client.lookAtChannel("0x01"),
  models: (client) => client.models(),
  node: (client) => client.node("12D3"),
  nodeEarnings: (client) => client.nodeEarnings(wallet, { days: 3 }),
  payoutAddress: (client) => client.payoutAddress(),
  privatePool: (client) => client.privatePool(wallet),
  providerNodes: (client) => client.providerNodes(),
  providerStats: (client) => client.providerStats(),
  quote: (client) => client.quote({ model: "m", messages: [...messages], maxTokens: 2, n: 2, tier: "standard", idempotency_key: "k" }),
  ready: (client) => client.ready(),
  rebalance: (client) => client.rebalance({ model: "m", replicas: 3 }),
  receipts: (client) => client.receipts("req_1"),
  removeWorker: (client) => client.removeWorker("w"),
  request: (client) => client.request("req_1"),
  revokeApiKey: (client) => client.revokeApiKey("key_1"),
  rewardHistory: (client) => client.rewardHistory({ limit: 1, cursor: "c", receipts: true }),
  rewards: (client) => client.rewards({ days: 3 }),
  sendVoucher: (client) => client.sendVoucher(voucher),
  setListPrice: (client) =>
    client.setListPrice({ model: "m", tier: "premium", price: { prompt_price_units: 1, completion_price_units: 2 } }),
  setPayoutAddress: (client) => client.setPayoutAddress(wallet),
  setPrivatePool: (client) => client.setPrivatePool(wallet, ["12D3"]),
  setWalletTier: (client) => client.setWalletTier(wallet, { tier: "premium", until: null }),
  settlement: (client) => client.settlement({ limit: 1, before: 2 }),
  signIn: (client) => client.signIn(),
  signOut: (client) => client.signOut({ everywhere: true, revokeKeys: true }).then(() => client.signIn()).then(() => client.signOut()),
  submitJob: (client) =>
    client.submitJob({ model: "m", prompt: "x", maxTokens: 2, webhook: { url: "https://x.test", include_result: true } }),
  tiers: (client) => client.tiers(),
  usage: (client) => client.usage({ from: "2026-01-01", to: "2026-01-02", model: "m", apiKey: "k", limit: 1, cursor: "c" }),
  usageCsv: (client) => client.usageCsv({ from: "2026-01-01", to: "2026-01-02", model: "m", apiKey: "k" }),
  waitForJob: (client) => client.waitForJob("job_1"),
  walletTier: (client) => client.walletTier(wallet),
  webhookSecret: (client) => client.webhookSecret(),
  workers: (client) => client.workers({ limit: 1, after: "a" }),
};

/** What asks for nothing itself; tests of their own are in signing.test.ts and generation.test.ts. */
const WITHOUT_A_REQUEST = ["payByVoucher", "signVoucher"];

/** What of the document is for others than users of this package. */
const FOR_OTHERS = [
  /^GET \/api\/auth\/nonce$/, // the same by POST
  /^POST \/deposit$/, // the same without a token
  /^(GET|POST) \/v1\/(models|chat|completions)/, // clients of OpenAI's API
  /^POST .*\/nodes\/(register|heartbeat|register-distributed)$/, // what nodes say
  /^GET (\/api\/discovery)?\/nodes\/active\//, // other names of /api/nodes/active
  /^GET \/bootstrap$/, // what nodes ask
  /^POST \/api\/models\//, // always refused
];

interface Asked {
  method: string;
  url: URL;
  headers: Headers;
  body: unknown;
}

function sdkWallet(): `0x${string}` {
  return `0x${"ab".repeat(20)}`;
}

/** A client whose gateway says yes to everything, and what it was asked. */
function recorded(): { client: Client; seen: Asked[] } {
  const seen: Asked[] = [];
  const answer = {
    message: signInMessage(wallet),
    token: "t",
    expires_at: new Date(Date.now() + 3_600_000).toISOString(),
    wallet_address: wallet,
    ended_at: "2026-01-01T00:00:00Z",
  };
  const fetch = (async (input: string | URL | Request, init: RequestInit = {}) => {
    const url = new URL(String(input));
    const body: unknown = typeof init.body === "string" ? JSON.parse(init.body) : undefined;
    seen.push({ method: init.method ?? "GET", url, headers: new Headers(init.headers), body });
    if (init.method === "DELETE" && !url.pathname.startsWith("/results")) return new Response(null, { status: 204 });
    if (url.pathname.startsWith("/api/auth/logout")) return new Response(null, { status: 204 });
    if (url.pathname.endsWith("/generate")) {
      const done = { done: true, completion_tokens: 0, finish_reason: "stop" };
      return new Response(`data: ${JSON.stringify(done)}\n\n`, { headers: { "content-type": "text/event-stream" } });
    }
    return Response.json(answer);
  }) as typeof globalThis.fetch;
  const signer = { address: wallet, signMessage: () => Promise.resolve("0x01" as const) };
  const session = { token: "t", expiresAt: answer.expires_at, walletAddress: wallet };
  return { client: new sdk.FarLabsClient({ url: "https://far.test", fetch, signer, session }), seen };
}

function operationOf({ method, url }: Asked): { name: string; operation: Operation } {
  const found = operations.filter((one) => {
    const form = one.path.replace(/\{model_id\}/, ".+").replace(/\{\w+\}/g, "[^/]+");
    return one.method.toUpperCase() === method && new RegExp(`^${form}$`).test(url.pathname);
  });
  const one = found.find((one) => one.path === url.pathname) ?? found[0];
  if (one === undefined) throw new Error(`${method} ${url.pathname} is not in the document`);
  return one;
}

function resolved(schema: Schema): Schema {
  if (schema.$ref !== undefined) return document.components.schemas[schema.$ref.split("/").at(-1) ?? ""] ?? {};
  const first = schema.anyOf?.[0];
  return first === undefined ? schema : resolved(first);
}

const names = readdirSync(new URL("../src/actions", import.meta.url)).map((file) => file.replace(/\.ts$/, ""));

describe("actions", () => {
  it("are one to a file, exported, and methods of the client", () => {
    const { client } = recorded();
    for (const name of names) {
      expect(sdk, name).toHaveProperty(name);
      if (name !== "signVoucher") expect(client, name).toHaveProperty(name);
    }
    expect([...Object.keys(calls), ...WITHOUT_A_REQUEST].sort()).toEqual([...names].sort());
  });

  it.each(Object.entries(calls))("%s asks as the document says", async (name, call) => {
    const { client, seen } = recorded();
    await Promise.resolve(call(client)).catch((error: unknown) => {
      if (!(error instanceof TypeError)) throw error; // the answers here are short of fields
    });
    expect(seen, name).not.toHaveLength(0);
    for (const asked of seen) {
      const { operation } = operationOf(asked);
      const query = operation.parameters?.filter((one) => one.in === "query") ?? [];
      expect(query.map((one) => one.name)).toEqual(expect.arrayContaining([...asked.url.searchParams.keys()]));
      expect([...asked.url.searchParams.keys()]).toEqual(
        expect.arrayContaining(query.filter((one) => one.required === true).map((one) => one.name)),
      );
      expect(asked.headers.has("authorization"), "authorization").toBe((operation.security?.length ?? 0) > 0);
      const schema = operation.requestBody?.content["application/json"].schema;
      if (schema === undefined) {
        expect(asked.body).toBeUndefined();
        continue;
      }
      const { properties = {}, required = [] } = resolved(schema);
      expect(Object.keys(asked.body as object)).toEqual(expect.arrayContaining(required));
      if (Object.keys(properties).length > 0) {
        expect(Object.keys(properties)).toEqual(expect.arrayContaining(Object.keys(asked.body as object)));
      }
      if (asked.headers.has("idempotency-key")) {
        expect(operation.parameters?.map((one) => one.name)).toContain("idempotency-key");
      }
    }
  });

  it("are all that an application can ask for", async () => {
    const asked = new Set<string>();
    for (const call of Object.values(calls)) {
      const { client, seen } = recorded();
      await Promise.resolve(call(client)).catch(() => undefined);
      for (const one of seen) asked.add(operationOf(one).name);
    }
    const left = operations.map((one) => one.name).filter((name) => !asked.has(name));
    expect(left.filter((name) => !FOR_OTHERS.some((form) => form.test(name)))).toEqual([]);
    for (const form of FOR_OTHERS) expect(left.some((name) => form.test(name)), String(form)).toBe(true);
  });

  it("that may charge have a name of their own each time", async () => {
    for (const name of ["generate", "chat", "embeddings", "submitJob"]) {
      const keys = new Set<string>();
      for (let time = 0; time < 2; time++) {
        const { client, seen } = recorded();
        if (name === "chat") await client.chat({ model: "m", messages }).result();
        else await calls[name]?.(client);
        keys.add(seen[0]?.headers.get("idempotency-key") ?? "");
      }
      expect(keys.size, name).toBe(2);
      for (const key of keys) expect(key).toMatch(/^[0-9a-f]{32}$/);
    }
  });

  it("go to the marketplace where nobody says another", () => {
    expect(sdk.createTransport({}).url).toBe(sdk.DEFAULT_URL);
  });

  it("are found at a gateway that lies in a folder", async () => {
    const seen: string[] = [];
    const fetch = (async (input: string | URL | Request) => {
      seen.push(String(input));
      return Response.json({ models: [] });
    }) as typeof globalThis.fetch;
    await sdk.models(sdk.createTransport({ url: "https://far.test/mesh/", fetch }));
    expect(seen).toEqual(["https://far.test/mesh/api/inference/models"]);
  });
});
