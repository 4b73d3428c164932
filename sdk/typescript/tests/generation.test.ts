import { describe, expect, it } from "vitest";
import {
  createTransport,
  FarLabsClient,
  FarLabsError,
  type PayVoucher,
  type Place,
  payByVoucher,
  type Quote,
  StreamError,
  type VoucherEvent,
} from "../src/index.js";
import { privateKeySigner } from "../src/viem.js";
import { fixtures } from "./fixtures.js";
import { allOf, CUT, HOLD, json, type Part, RecordedServer, refusal, type Seen, stream } from "./server.js";

const BILL = { request_id: "req_1", completion_tokens: 2, prompt_tokens: 3, cost_units: 7, nodes_used: [] };
const DONE = { done: true, finish_reason: "stop", ...BILL };
const ask = { model: "m", messages: [{ role: "user", content: "Hello" }] } as const;

async function answered(parts: readonly (Part | object)[], act: (client: FarLabsClient) => Promise<void>): Promise<void> {
  await using server = await RecordedServer.start([stream(...parts)]);
  await act(new FarLabsClient({ url: server.url, apiKey: "sk-far-x" }));
}

function token(text: string, more: object = {}): object {
  return { token: text, request_id: "req_1", ...more };
}

describe("a generation", () => {
  it("is its text, piece by piece, and then a result in the shape of a plain answer", async () => {
    await answered([token("Grüße"), ": waiting\n\n", token(" 🐇"), token(""), DONE], async (client) => {
      const generation = client.chat(ask);
      expect(generation.requestId).toBeUndefined();
      const texts = await allOf(generation);
      expect(texts).toEqual(["Grüße", " 🐇"]);
      expect([generation.text, generation.requestId]).toEqual(["Grüße 🐇", "req_1"]);
      expect(generation.done).toMatchObject({ cost_units: 7 });
      const result = await generation.result();
      expect(result).toEqual({
        ...BILL,
        finish_reason: "stop",
        text: "Grüße 🐇",
        tool_calls: null,
        logprobs: null,
        choices: null,
        tokens_generated: 2,
      });
      expect(await generation.result()).toEqual(result);
    });
  });

  it("says where it stands while it waits for its turn, and nothing of other comments", async () => {
    const comments = [": queued 12", ": queued 3, no node serves blocks 3:6", ":queued at the nodes", ": queued at the nodes, soon"];
    const others = [": waiting", ":", ": queued", ": queued x", ": queued -1", ": queued 1e3", ": queued 1 2", ": unqueued 1"];
    const lines = [...comments, ...others].map((line) => `${line}\n\n`);
    await answered([...lines, token("a"), DONE], async (client) => {
      const places: Place[] = [];
      const { text } = await client.chat({ ...ask, onWait: (place) => void places.push(place) }).result();
      expect(text).toBe("a");
      expect(places).toEqual([
        { position: 12, obstacle: undefined },
        { position: 3, obstacle: "no node serves blocks 3:6" },
        { position: 0, obstacle: undefined },
        { position: 0, obstacle: "soon" },
      ]);
    });
    await answered([": queued 9\n\n", HOLD], async (client) => {
      const onWait = () => Promise.reject(new Error("I do not wait"));
      await expect(client.chat({ ...ask, onWait }).result()).rejects.toThrow("I do not wait");
    });
  });

  it("keeps calls of tools and log probabilities", async () => {
    const call = (id: string) => ({ id, type: "function", function: { name: "weather", arguments: '{"city":"Bonn"}' } });
    const logprob = { token: "a", bytes: [97], logprob: -1, top_logprobs: [] };
    const parts = [token("", { tool_calls: [call("1")] }), token("a", { logprob }), token("", { tool_calls: [call("2")] })];
    await answered([...parts, { ...DONE, finish_reason: "tool_calls" }], async (client) => {
      const result = await client.chat({ ...ask, tools: [{ type: "function", function: { name: "weather" } }] }).result();
      expect(result.tool_calls?.map((one) => one.id)).toEqual(["1", "2"]);
      expect(result.logprobs).toEqual([logprob]);
      expect(result.finish_reason).toBe("tool_calls");
    });
  });

  it("tells several answers apart", async () => {
    const parts = [token("a", { index: 0 }), token("b", { index: 1 }), token("c", { index: 0 })];
    await answered([...parts, { ...DONE, finish_reasons: ["stop", "length"] }], async (client) => {
      const generation = client.chat({ ...ask, n: 2 });
      const indexes = [];
      for await (const event of generation.events()) indexes.push(event.index);
      expect(indexes).toEqual([0, 1, 0]);
      const { text, choices } = await generation.result();
      expect(text).toBe("ac");
      expect(choices?.map((one) => [one.index, one.text, one.finish_reason])).toEqual([
        [0, "ac", "stop"],
        [1, "b", "length"],
      ]);
    });
  });

  it("asks for nothing before it is read, and can be read once", async () => {
    await using server = await RecordedServer.start([stream(token("a"), DONE)]);
    const client = new FarLabsClient({ url: server.url, apiKey: "sk-far-x" });
    const generation = client.generate({ model: "m", prompt: "x" });
    expect(server.seen).toHaveLength(0);
    await generation.result();
    await expect(allOf(generation)).rejects.toMatchObject({ name: "FarLabsError", code: "already_read" });
    expect(server.seen).toHaveLength(1);
  });

  it("that was left has no result", async () => {
    await answered([token("a"), token("b"), DONE], async (client) => {
      const generation = client.chat(ask);
      for await (const _ of generation) break;
      await expect(generation.result()).rejects.toMatchObject({ name: "StreamError", code: "not_ended", requestId: "req_1" });
    });
  });

  it.each([
    ["ends without its last event", [token("a")]],
    ["is cut off", [token("a"), CUT]],
    ["is cut off within an event", [token("a"), 'data: {"done": true', CUT]],
    ["is cut off within a character", [token("a"), Uint8Array.of(0x64, 0x61, 0x74, 0x61, 0x3a, 0xf0, 0x9f), CUT]],
  ])("that %s is a StreamError, and what came before is right", async (_, parts: (Part | object)[]) => {
    await answered(parts, async (client) => {
      const generation = client.chat(ask);
      await expect(generation.result()).rejects.toMatchObject({ name: "StreamError", code: "stream_broken", requestId: "req_1" });
      expect(generation.text).toBe("a");
    });
  });

  it.each(["[]", "null", "1", '"x"', "{}", "{", '{"token": 1}', '{"token": "a", "index": 1e9}', '{"token": "a", "index": -1}', "[DONE]"])(
    "takes %s for no event",
    async (data) => {
      await answered([`data: ${data}\n\n`, DONE], async (client) => {
        await expect(client.chat(ask).result()).rejects.toMatchObject({ code: "not_understood" });
      });
    },
  );

  it("that fails in the middle has the gateway's reason", async () => {
    const error = { message: "a node was lost", type: "server_error", param: null, code: "generation_failed" };
    await answered([token("a"), { error }], async (client) => {
      const failed = await client.chat(ask).result().catch((error: unknown) => error);
      expect(failed).toBeInstanceOf(StreamError);
      expect(failed).toMatchObject({ code: "generation_failed", status: undefined, requestId: "req_1", retry: false });
    });
  });
});

describe("a voucher that a stream waits for", () => {
  const key = fixtures.vouchers[0]!.key;
  const quote = { prompt_tokens: 3, prompt_price_units: 10, completion_price_units: 100 } as Quote;
  const needed: VoucherEvent = {
    type: "voucher_needed",
    channel_id: fixtures.vouchers[0]!.voucher.channelId,
    promise_units: 230,
    promise_wei: "230000000000",
    deposit_units: 10_000,
    step_units: 300,
    seconds: 10,
  };

  function gateway(changes: object = {}): (seen: Seen) => ReturnType<typeof json> {
    return (seen) => {
      if (seen.path === "/api/account/balance") return json({ chain_id: 31337, escrow_address: fixtures.vouchers[0]!.escrow });
      if (seen.path.endsWith("/generate")) return stream(token("a"), token("b"), needed, DONE);
      return json({ captured_units: 1000, promised_units: 1200, ...changes });
    };
  }

  async function paid(
    changes: object,
    options: object,
    told: VoucherEvent = needed,
    tokens = 2,
  ): Promise<string | undefined> {
    await using server = await RecordedServer.start(gateway(changes));
    const transport = createTransport({ url: server.url, apiKey: "sk-far-x", signer: privateKeySigner(key) });
    await payByVoucher(transport, { quote, ...options })(told, tokens);
    const sent = server.seen.find((seen) => seen.path.endsWith("/vouchers"))?.body as Record<string, string> | undefined;
    return sent?.["maxClaimableAmount"];
  }

  const wei = (units: number) => `${units}000000000`;

  it("is signed for what was charged before, what has come, and one step", async () => {
    expect(await paid({}, {})).toBe(wei(1000 + 30 + 200 + 300));
    expect(await paid({}, {}, needed, 0)).toBe(wei(1000 + 30 + 300));
  });

  it("counts what was charged before only as far as it was signed for", async () => {
    expect(await paid({ captured_units: 9_000, promised_units: 50 }, {})).toBe(wei(50 + 30 + 200 + 300));
  });

  it("is for no more than lies in the channel, nor than one allows", async () => {
    expect(await paid({}, {}, { ...needed, deposit_units: 1400 })).toBe(wei(1400));
    expect(await paid({}, { maxUnits: 1300n })).toBe(wei(1300));
    expect(await paid({}, { stepUnits: 5n })).toBe(wei(1235));
  });

  it.each([
    [{ ...needed, promise_units: 1531 }, {}],
    [{ ...needed, promise_units: 1301 }, { maxUnits: 1300n }],
    [{ ...needed, promise_units: 1236, step_units: 1_000_000 }, { stepUnits: 5n }],
  ])("is not signed for more than that: %#", async (told, options) => {
    await expect(paid({}, options, told)).rejects.toMatchObject({ code: "voucher_limit" });
  });

  it("may have been sent before, when the answer to it was lost", async () => {
    let times = 0;
    const script = (seen: Seen) => {
      if (!seen.path.endsWith("/vouchers")) return gateway()(seen);
      return ++times === 1 ? { parts: [CUT] } : refusal(402, "voucher_stale");
    };
    await using server = await RecordedServer.start(script);
    const transport = createTransport({ url: server.url, apiKey: "sk-far-x", signer: privateKeySigner(key) });
    await payByVoucher(transport, { quote })(needed, 2);
    expect(times).toBe(2);
  });

  it("lets the stream go on", async () => {
    await using server = await RecordedServer.start(gateway());
    const client = new FarLabsClient({ url: server.url, apiKey: "sk-far-x", signer: privateKeySigner(key) });
    const onVoucher = client.payByVoucher({ quote });
    expect((await client.chat({ ...ask, payment: "channel", onVoucher }).result()).text).toBe("ab");
    expect(server.seen.at(-1)?.path).toMatch(/vouchers$/);
  });

  it("is told of where nobody signs", async () => {
    await answered([needed, DONE], async (client) => {
      await expect(client.chat(ask).result()).rejects.toMatchObject({ name: "FarLabsError", code: "voucher_needed" });
    });
  });

  it("that fails ends the answer with its reason", async () => {
    await answered([needed, DONE], async (client) => {
      const onVoucher: PayVoucher = () => Promise.reject(new FarLabsError("no", { code: "voucher_limit" }));
      await expect(client.chat({ ...ask, onVoucher }).result()).rejects.toMatchObject({ code: "voucher_limit" });
    });
  });
});
