/** How requests go, against a server that answers by a script. */

import { describe, expect, it, vi } from "vitest";
import {
  AuthenticationError,
  balance,
  ConflictError,
  ConnectionError,
  createTransport,
  deposit,
  FarLabsError,
  generate,
  InvalidRequestError,
  models,
  PaymentRequiredError,
  RateLimitError,
  ready,
  ServerError,
  type Session,
  type Signer,
  signOut,
  StreamError,
  submitJob,
  TimeoutError,
  type Transport,
  type TransportOptions,
} from "../src/index.js";
import { CUT, HOLD, json, RecordedServer, refusal, type Reply, type Script, type Seen, signInMessage, stream } from "./server.js";

const ADDRESS = `0x${"aB".repeat(20)}` as const;
const MODELS = json({ models: [] });
const TOKEN = { token: "Once", request_id: "req_1" };
const DONE = { done: true, request_id: "req_1", completion_tokens: 1, finish_reason: "stop" };
const SOON = { "retry-after-ms": "5" };

function sessionOf(token: string, changes: Partial<Session> = {}): Session {
  return { token, expiresAt: new Date(Date.now() + 3_600_000).toISOString(), walletAddress: ADDRESS, ...changes };
}

/** Waits for it; machines may be busy. */
const until = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 60_000 });

class Wallet implements Signer {
  readonly address = ADDRESS;
  asked = 0;
  constructor(readonly answer: () => Promise<`0x${string}`> = () => Promise.resolve("0x01")) {}
  signMessage(): Promise<`0x${string}`> {
    this.asked++;
    return this.answer();
  }
}

async function served(
  script: Script,
  act: (transport: Transport, server: RecordedServer) => Promise<void>,
  options: Omit<TransportOptions, "url"> = { apiKey: "sk-far-x" },
): Promise<void> {
  await using server = await RecordedServer.start(script);
  await act(createTransport({ url: server.url, ...options }), server);
}

/** Signs in anybody; the tokens are t1, t2 and so on, and only the newest counts. */
function gate(answer: (seen: Seen) => Reply): { script: (seen: Seen) => Reply; signIns: () => number } {
  let count = 0;
  const script = (seen: Seen): Reply => {
    if (seen.path === "/api/auth/nonce") return json({ message: signInMessage(ADDRESS) });
    if (seen.path === "/api/auth/login") {
      const { token, expiresAt } = sessionOf(`t${++count}`);
      return json({ token, expires_at: expiresAt, wallet_address: ADDRESS });
    }
    return seen.headers.authorization === `Bearer t${count}` ? answer(seen) : refusal(401, "unauthorized");
  };
  return { script, signIns: () => count };
}

describe("an address", () => {
  it.each(["", "far.test", "ftp://far.test", "javascript:0", "/x"])("%j is none of a gateway", (url) => {
    expect(() => createTransport({ url })).toThrow(expect.objectContaining({ code: "invalid_url" }));
  });

  it.each(["", "sk far", "sk\nfar", "schlüssel"])("%j is no API key", (apiKey) => {
    expect(() => createTransport({ url: "https://far.test", apiKey })).toThrow(expect.objectContaining({ code: "invalid_key" }));
  });
});

describe("a refusal", () => {
  it.each([
    [400, "invalid_argument", InvalidRequestError],
    [401, "unauthorized", AuthenticationError],
    [402, "insufficient_balance", PaymentRequiredError],
    [409, "conflict", ConflictError],
    [413, "body_too_large", InvalidRequestError],
    [500, "internal_error", ServerError],
  ])("of status %i has its class and code, and is not asked again", async (status, code, kind) => {
    await served([refusal(status, code, { "x-request-id": "req_9" })], async (transport, server) => {
      const error = await balance(transport).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(kind);
      expect(error).toMatchObject({ code, status, requestId: "req_9", message: `no: ${code}`, type: "some_error" });
      expect(server.seen).toHaveLength(1);
    });
  });

  it("for want of money says how to pay", async () => {
    const accepts = [{ scheme: "far-balance", amount: "1000" }];
    const reply = json({ error: { message: "pay", type: "t", param: null, code: "insufficient_balance" }, accepts }, 402);
    await served([reply], async (transport) => {
      const error = await balance(transport).catch((error: unknown) => error);
      expect(error).toMatchObject({ accepts, retry: false, param: undefined });
    });
  });

  it.each([
    ["a page of somebody's in between", { status: 500, headers: { "content-type": "text/html" }, parts: ["<h1>500</h1>"] }],
    ["nothing", { status: 500 }],
    ["JSON of another kind", json(["error"], 500)],
    ["an error that is text", json({ error: "no" }, 500)],
  ])("that is %s is a ServerError all the same", async (_, reply: Reply) => {
    await served([reply], async (transport) => {
      await expect(models(transport)).rejects.toMatchObject({ name: "ServerError", code: "http_500", status: 500 });
    });
  });

  it("that sends elsewhere is not followed: credentials go to nobody else", async () => {
    await served([{ status: 307, headers: { location: "https://elsewhere.test/" } }], async (transport, server) => {
      await expect(balance(transport)).rejects.toMatchObject({ code: "redirected" });
      await expect(balance(transport)).rejects.not.toThrow(/sk-far/);
      expect(server.seen).toHaveLength(2);
    });
  });
});

describe("an answer that is none", () => {
  it.each([
    ["a web page", { headers: { "content-type": "text/html" }, parts: ["<!doctype html>"] }],
    ["half of one", { headers: { "content-type": "application/json" }, parts: ['{"models": ['] }],
    ["a number", json(1)],
    ["null", json(null)],
    ["empty", {}],
  ])("is told: %s", async (_, reply: Reply) => {
    await served([reply], async (transport) => {
      const error = await models(transport).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(FarLabsError);
      expect(error).toMatchObject({ code: "not_understood" });
    });
  });

  it("is told of a stream that is a page", async () => {
    await served([{ headers: { "content-type": "text/html" }, parts: ["<!doctype html>", HOLD] }], async (transport, server) => {
      await expect(generate(transport, { model: "m", prompt: "x" }).result()).rejects.toMatchObject({ code: "not_understood" });
      await until(() => expect(server.hangUps).toBe(1));
    });
  });

  it("is no reason for a second charge: a stream with garbage is not asked again", async () => {
    await served([stream("data: {nonsense\n\n")], async (transport, server) => {
      await expect(generate(transport, { model: "m", prompt: "x" }).result()).rejects.toThrow(StreamError);
      expect(server.seen).toHaveLength(1);
    });
  });
});

describe("what was not begun", () => {
  it.each([429, 502, 503, 504])("is asked again after %i, as long as the gateway says", async (status) => {
    await served([refusal(status, "busy", SOON), MODELS], async (transport, server) => {
      await expect(models(transport)).resolves.toEqual([]);
      expect(server.seen).toHaveLength(2);
    });
  });

  it("is given up after two more times, or as often as one says", async () => {
    const always = () => refusal(503, "no_route", SOON);
    await served(always, async (transport, server) => {
      await expect(models(transport)).rejects.toMatchObject({ code: "no_route", retry: true, retryAfter: 0.005 });
      expect(server.seen).toHaveLength(3);
      await expect(models(transport, { maxRetries: 0 })).rejects.toThrow(ServerError);
      expect(server.seen).toHaveLength(4);
    });
  });

  it("is not waited for longer than half a minute: whoever asked decides", async () => {
    await served([refusal(429, "rate_limit_exceeded", { "retry-after": "31" })], async (transport, server) => {
      const error = await models(transport).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(RateLimitError);
      expect(error).toMatchObject({ retryAfter: 31, retry: true });
      expect(server.seen).toHaveLength(1);
    });
  });

  it.each([
    [{ "retry-after-ms": "1500", "retry-after": "2" }, 1.5],
    [{ "retry-after": "40" }, 40],
    [{ "retry-after": "soon" }, undefined],
    [{ "retry-after": "-1" }, undefined],
    [{}, undefined],
  ])("after %j", async (headers: Record<string, string>, retryAfter) => {
    await served([refusal(429, "busy", headers)], async (transport) => {
      await expect(models(transport, { maxRetries: 0 })).rejects.toMatchObject({ retryAfter });
    });
  });

  it("may say when as a date", async () => {
    const at = new Date(Date.now() + 60_000).toUTCString();
    await served([refusal(503, "busy", { "retry-after": at })], async (transport) => {
      const error = (await models(transport).catch((error: unknown) => error)) as FarLabsError;
      expect(error.retryAfter).toBeGreaterThan(50);
      expect(error.retryAfter).toBeLessThanOrEqual(60);
    });
  });

  it("is waited for no longer than its caller wants", async () => {
    await served([refusal(429, "busy", { "retry-after": "20" })], async (transport) => {
      const stop = new AbortController();
      const asked = models(transport, { signal: stop.signal });
      setTimeout(() => stop.abort(new Error("enough")), 50);
      await expect(asked).rejects.toThrow("enough");
    });
  });

  it("408 for a body that came too slowly is not sent three times", async () => {
    await served([refusal(408, "request_timeout")], async (transport, server) => {
      await expect(models(transport)).rejects.toMatchObject({ code: "request_timeout" });
      expect(server.seen).toHaveLength(1);
    });
  });
});

describe("what gets no answer", () => {
  const lost: Reply = { parts: [CUT] };

  it("is asked again where that changes nothing", async () => {
    await served([lost, MODELS], async (transport, server) => {
      await expect(models(transport)).resolves.toEqual([]);
      expect(server.seen).toHaveLength(2);
    });
    await served([lost, json({ status: "credited" })], async (transport, server) => {
      await deposit(transport, "0x01");
      expect(server.seen).toHaveLength(2);
    });
  });

  it("is asked again under the same name where it may charge", async () => {
    await served([lost, lost, stream(TOKEN, DONE)], async (transport, server) => {
      expect((await generate(transport, { model: "m", prompt: "x" }).result()).text).toBe("Once");
      const keys = server.seen.map((seen) => seen.headers["idempotency-key"]);
      expect(new Set(keys).size).toBe(1);
      expect(keys).toHaveLength(3);
    });
  });

  it("is asked under a new name only where the gateway itself has refused the old one", async () => {
    const script = [refusal(503, "no_route", SOON), refusal(429, "queue_full", SOON), stream(TOKEN, DONE)];
    await served(script, async (transport, server) => {
      await generate(transport, { model: "m", prompt: "x" }).result();
      expect(new Set(server.seen.map((seen) => seen.headers["idempotency-key"])).size).toBe(3);
    });
    const proxy: Reply = { status: 504, headers: { "content-type": "text/html", ...SOON }, parts: ["<h1>504</h1>"] };
    await served([proxy, stream(TOKEN, DONE)], async (transport, server) => {
      await generate(transport, { model: "m", prompt: "x" }).result();
      expect(new Set(server.seen.map((seen) => seen.headers["idempotency-key"])).size).toBe(1);
    });
  });

  it("keeps the name that its caller gave", async () => {
    await served([lost, refusal(503, "no_route", SOON), json({ job_id: "j" }, 202)], async (transport, server) => {
      await submitJob(transport, { model: "m", prompt: "x", idempotencyKey: "report-17" });
      expect(server.seen.map((seen) => seen.headers["idempotency-key"])).toEqual(Array(3).fill("report-17"));
    });
  });

  it("is not asked again where nobody could tell", async () => {
    await served([lost], async (transport, server) => {
      await expect(transport.call({ method: "POST", path: "/workers", body: {} })).rejects.toThrow(ConnectionError);
      expect(server.seen).toHaveLength(1);
    });
  });

  it("is a ConnectionError in the end, also where nobody listens", async () => {
    const server = await RecordedServer.start([]);
    const { url } = server;
    await server[Symbol.asyncDispose]();
    await expect(models(createTransport({ url }), { maxRetries: 1 })).rejects.toMatchObject({
      name: "ConnectionError",
      code: "connection_failed",
      retry: true,
      status: undefined,
    });
  });

  it("breaks off in the middle of an answer", async () => {
    const half: Reply = { headers: { "content-type": "application/json" }, parts: ['{"models": [', CUT] };
    await served([half], async (transport) => {
      await expect(models(transport)).rejects.toThrow(ConnectionError);
    });
  });
});

describe("time", () => {
  it("runs out where no answer begins", async () => {
    await served([{ parts: [HOLD] }], async (transport, server) => {
      await expect(models(transport, { timeout: 500 })).rejects.toThrow(TimeoutError);
      await until(() => expect(server.hangUps).toBe(1));
    });
  });

  it("runs out where a stream stands still, and not while it is slow", async () => {
    const slow = stream(TOKEN, 60, ": queued 3\n\n", 60, TOKEN, 60, DONE);
    await served([slow, stream(TOKEN, HOLD)], async (transport, server) => {
      const options = { model: "m", prompt: "x", timeout: 10_000 };
      expect((await generate(transport, options).result()).text).toBe("OnceOnce");
      const stuck = generate(transport, { ...options, timeout: 1_000 });
      await expect(stuck.result()).rejects.toMatchObject({ code: "timeout" });
      expect(stuck.text).toBe("Once");
      await until(() => expect(server.hangUps).toBe(1));
    });
  });

  it.each([Infinity, 2 ** 40])("of %d milliseconds never runs out", async (timeout) => {
    await served([{ ...MODELS, parts: [30, ...(MODELS.parts ?? [])] }], async (transport) => {
      await expect(models(transport, { timeout })).resolves.toEqual([]);
    });
  });

  it("runs out also where whoever fetches does not heed signals", async () => {
    const fetch = (() => new Promise(() => undefined)) as typeof globalThis.fetch;
    await expect(models(createTransport({ url: "https://far.test", fetch, timeout: 30 }))).rejects.toThrow(TimeoutError);
  });
});

describe("a signal", () => {
  it("that was given before asks for nothing", async () => {
    await served([], async (transport, server) => {
      const signal = AbortSignal.abort(new Error("never mind"));
      await expect(models(transport, { signal })).rejects.toThrow("never mind");
      await expect(generate(transport, { model: "m", prompt: "x", signal }).result()).rejects.toThrow("never mind");
      expect(server.seen).toHaveLength(0);
    });
  });

  it("hangs up while the answer is waited for", async () => {
    await served([{ parts: [HOLD] }], async (transport, server) => {
      const stop = new AbortController();
      const asked = models(transport, { signal: stop.signal });
      await until(() => expect(server.seen).toHaveLength(1));
      stop.abort(new Error("enough"));
      await expect(asked).rejects.toThrow("enough");
      await until(() => expect(server.hangUps).toBe(1));
    });
  });

  it("hangs up while a stream comes, and its reason is what one gets", async () => {
    await served([stream(TOKEN, HOLD)], async (transport, server) => {
      const stop = new AbortController();
      const generation = generate(transport, { model: "m", prompt: "x", signal: stop.signal });
      const read = async () => {
        for await (const _ of generation) stop.abort(new Error("enough"));
      };
      await expect(read()).rejects.toThrow("enough");
      await until(() => expect(server.hangUps).toBe(1));
    });
  });

  it("that comes afterwards changes nothing, and nothing listens to it any more", async () => {
    const script = [MODELS, refusal(429, "busy", SOON), MODELS, stream(TOKEN, DONE), stream(TOKEN, TOKEN, HOLD), { parts: [CUT] }];
    await served(script, async (transport) => {
      const stop = new AbortController();
      let listening = 0;
      const { signal } = stop;
      const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
      const known = new Set<unknown>();
      signal.addEventListener = ((...all: Parameters<typeof add>) => {
        known.add(all[1]);
        listening = known.size;
        add(...all);
      }) as typeof add;
      signal.removeEventListener = ((...all: Parameters<typeof remove>) => {
        known.delete(all[1]);
        listening = known.size;
        remove(...all);
      }) as typeof remove;
      await models(transport, { signal });
      await models(transport, { signal });
      await generate(transport, { model: "m", prompt: "x", signal }).result();
      for await (const _ of generate(transport, { model: "m", prompt: "x", signal })) break;
      await models(transport, { signal, maxRetries: 0 }).catch(() => undefined);
      expect(listening).toBe(0);
      stop.abort();
    });
  });
});

describe("leaving a loop", () => {
  it("hangs up", async () => {
    await served([stream(TOKEN, TOKEN, HOLD)], async (transport, server) => {
      for await (const text of generate(transport, { model: "m", prompt: "x" })) {
        expect(text).toBe("Once");
        break;
      }
      await until(() => expect(server.hangUps).toBe(1));
    });
  });
});

describe("a wallet", () => {
  it("signs in when something needs it, once for all who ask", async () => {
    const { script, signIns } = gate(() => json({ available_units: 1 }));
    const signer = new Wallet();
    const told: (string | undefined)[] = [];
    const onSession = (session: Session | undefined) => void told.push(session?.token);
    await served(
      script,
      async (transport) => {
        await Promise.all([balance(transport), balance(transport), transport.signIn()]);
        expect(transport.session?.token).toBe("t1");
        await balance(transport);
        expect([signer.asked, signIns()]).toEqual([1, 1]);
        expect(told).toEqual(["t1"]);
      },
      { signer, onSession },
    );
  });

  it("is asked for nothing by what needs nobody", async () => {
    const signer = new Wallet();
    await served([MODELS], async (transport) => void (await models(transport)), { signer });
    expect(signer.asked).toBe(0);
  });

  it("renews a token before it runs out", async () => {
    const { script } = gate(() => json({}));
    const signer = new Wallet();
    const session = sessionOf("old", { expiresAt: new Date(Date.now() + 30_000).toISOString() });
    await served(script, async (transport) => void (await balance(transport)), { signer, session });
    expect(signer.asked).toBe(1);
  });

  it("renews a token that counts no more, once for all who were refused", async () => {
    const { script, signIns } = gate(() => json({}));
    const signer = new Wallet();
    await served(
      script,
      async (transport, server) => {
        await Promise.all(Array.from({ length: 4 }, () => balance(transport)));
        expect([signer.asked, signIns()]).toEqual([1, 1]);
        expect(server.seen.filter((seen) => seen.path === "/api/account/balance")).toHaveLength(8);
      },
      { signer, session: sessionOf("revoked") },
    );
  });

  it("does not ask twice for one that was refused while it was being renewed", async () => {
    let release = () => undefined as void;
    const late = new Promise<void>((resolve) => (release = resolve));
    let refused = 0;
    const { script } = gate(() => json({}));
    const slow = async (seen: Seen) => {
      if (seen.headers.authorization === "Bearer revoked" && ++refused === 2) await late;
      return script(seen);
    };
    const signer = new Wallet();
    await served(
      slow,
      async (transport) => {
        const second = Promise.all([balance(transport), balance(transport)]);
        await until(() => expect(transport.session?.token).toBe("t1"));
        release();
        await second;
        expect(signer.asked).toBe(1);
      },
      { signer, session: sessionOf("revoked") },
    );
  });

  it("renews in the middle of a charge without charging twice", async () => {
    const charged: unknown[] = [];
    const { script } = gate((seen) => {
      charged.push(seen.headers["idempotency-key"]);
      return stream(TOKEN, DONE);
    });
    const options = { signer: new Wallet(), session: sessionOf("expired") };
    await served(script, async (transport) => void (await generate(transport, { model: "m", prompt: "x" }).result()), options);
    expect(charged).toHaveLength(1);
  });

  it("does not go on for ever where nothing counts", async () => {
    const signer = new Wallet();
    const told: unknown[] = [];
    const never = (seen: Seen): Reply => {
      if (seen.path === "/api/auth/nonce") return json({ message: signInMessage(ADDRESS) });
      if (seen.path === "/api/auth/login") return json({ token: "t", expires_at: sessionOf("t").expiresAt, wallet_address: ADDRESS });
      return refusal(401, "unauthorized");
    };
    await served(
      never,
      async (transport, server) => {
        await expect(balance(transport)).rejects.toThrow(AuthenticationError);
        expect(server.seen.filter((seen) => seen.path === "/api/account/balance")).toHaveLength(2);
        expect(transport.session).toBeUndefined();
        expect(told.at(-1)).toBeUndefined();
      },
      { signer, onSession: (session) => told.push(session) },
    );
    expect(signer.asked).toBe(2);
  });

  it("that is refused by its owner is told as it is, and not asked again", async () => {
    class UserRejectedRequestError extends Error {}
    const signer = new Wallet(() => Promise.reject(new UserRejectedRequestError("User rejected the request.")));
    await served(gate(() => json({})).script, async (transport) => {
      await expect(balance(transport)).rejects.toThrow(UserRejectedRequestError);
      expect(signer.asked).toBe(1);
      await expect(balance(transport)).rejects.toThrow(UserRejectedRequestError);
      expect(signer.asked).toBe(2);
    }, { signer });
  });

  it("that thinks for long can be left, and the others still wait for it", async () => {
    let sign: (signature: `0x${string}`) => void = () => undefined;
    const signer = new Wallet(() => new Promise((resolve) => (sign = resolve)));
    await served(gate(() => json({})).script, async (transport) => {
      const stop = new AbortController();
      const left = balance(transport, { signal: stop.signal });
      const waits = balance(transport);
      await until(() => expect(signer.asked).toBe(1));
      stop.abort(new Error("enough"));
      await expect(left).rejects.toThrow("enough");
      sign("0x01");
      await waits;
      expect(signer.asked).toBe(1);
    }, { signer });
  });

  it("of another kind than the token is signed in anew", async () => {
    const { script } = gate(() => json({}));
    const signer = new Wallet();
    const session = sessionOf("t0", { walletAddress: `0x${"cd".repeat(20)}` });
    await served(script, async (transport) => {
      expect(transport.session).toBeUndefined();
      await balance(transport);
    }, { signer, session });
    expect(signer.asked).toBe(1);
  });

  it("whose signature is another's is refused with the gateway's reason", async () => {
    const script = (seen: Seen) => (seen.path.endsWith("nonce") ? json({ message: signInMessage(ADDRESS) }) : refusal(401, "bad_signature"));
    await served(script, async (transport, server) => {
      await expect(balance(transport)).rejects.toMatchObject({ name: "AuthenticationError", code: "bad_signature" });
      expect(server.seen).toHaveLength(2);
    }, { signer: new Wallet() });
  });

  it.each([
    ["no sign-in message", "I owe you 1 FAR", "wrong_message", {}],
    ["nothing", undefined, "wrong_message", {}],
    ["a message for another wallet", signInMessage(`0x${"cd".repeat(20)}`), "wrong_wallet", {}],
    ["a message of another gateway", signInMessage(ADDRESS, "elsewhere.test"), "wrong_domain", {}],
    ["a message of its host", signInMessage(ADDRESS), "wrong_domain", { signInDomain: "mesh.test" }],
  ])("signs nothing for a gateway that wants %s signed", async (_, message, code, options) => {
    const signer = new Wallet();
    const fetch = (() => Promise.resolve(Response.json({ message }))) as typeof globalThis.fetch;
    const transport = createTransport({ url: "https://far.test", fetch, signer, ...options });
    await expect(transport.signIn()).rejects.toMatchObject({ name: "AuthenticationError", code });
    expect(signer.asked).toBe(0);
  });

  it.each([
    ["https://far.test", {}],
    ["https://FAR.test:443/mesh", {}],
    ["http://localhost:8000", {}],
    ["http://[::1]:8000", {}],
    ["https://proxy.test", { signInDomain: "FAR.test" }],
  ])("signs in at %s with %j", async (url, options) => {
    const { token, expiresAt } = sessionOf("t");
    const answer = { message: signInMessage(ADDRESS), token, expires_at: expiresAt, wallet_address: ADDRESS };
    const fetch = (() => Promise.resolve(Response.json(answer))) as typeof globalThis.fetch;
    await createTransport({ url, fetch, signer: new Wallet(), ...options }).signIn();
  });

  it("is needed where there is no key", async () => {
    await served([], async (transport) => {
      await expect(balance(transport)).rejects.toMatchObject({ code: "no_credential" });
      await expect(transport.signIn()).rejects.toMatchObject({ code: "no_credential" });
    }, {});
  });

  it("is asked for nothing to sign out, also with a token that counts no more", async () => {
    const signer = new Wallet();
    await served([refusal(401, "unauthorized")], async (transport, server) => {
      await signOut(transport);
      expect(transport.session).toBeUndefined();
      await signOut(transport);
      expect(server.seen.map((seen) => [seen.path, seen.headers.authorization])).toEqual([["/api/auth/logout", "Bearer old"]]);
    }, { signer, session: sessionOf("old") });
    expect(signer.asked).toBe(0);
  });
});

describe("a token without a wallet", () => {
  it("is used until the gateway says that it counts no more, and then forgotten", async () => {
    const session = sessionOf("t", { expiresAt: new Date(Date.now() + 1000).toISOString() });
    await served([json({}), refusal(401, "unauthorized")], async (transport) => {
      await balance(transport);
      await expect(balance(transport)).rejects.toThrow(AuthenticationError);
      expect(transport.session).toBeUndefined();
    }, { session });
  });
});

describe("/ready", () => {
  it("is an answer also when the gateway cannot serve", async () => {
    await served([json({ status: "unready", reasons: ["chain"] }, 503)], async (transport, server) => {
      expect(await ready(transport)).toMatchObject({ reasons: ["chain"] });
      expect(server.seen).toHaveLength(1);
    });
  });
});

describe("a body", () => {
  it("that cannot be written as JSON is told before anything is sent", async () => {
    await served([], async (transport, server) => {
      await expect(transport.call({ method: "POST", path: "/x", body: { amount: 1n } })).rejects.toMatchObject({ code: "invalid_argument" });
      expect(server.seen).toHaveLength(0);
    });
  });
});
