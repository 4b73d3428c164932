/** How requests go to a gateway: who asks, how long it may take, what is asked again. */

import { signIn, type Session } from "./actions/signIn.js";
import {
  AuthenticationError,
  CAN_RETRY,
  ConnectionError,
  errorOf,
  FarLabsError,
  StreamError,
  TimeoutError,
} from "./errors.js";
import type { Signer } from "./signer.js";
import { eventsOf, type ServerSentEvent } from "./sse.js";

export interface TransportOptions {
  /** Where the gateway is, such as `https://api.farlabs.ai`; in a page that it serves itself, `location.origin`. */
  url: string | URL;
  /** A key made with `createApiKey`. Goes before `signer`. */
  apiKey?: string | undefined;
  /** The wallet that signs in when that is needed, and again before the token runs out. */
  signer?: Signer | undefined;
  /** A token from before, such as one that a page has kept. */
  session?: Session | undefined;
  /** Told of each new token, and with undefined when there is none any more. */
  onSession?: ((session: Session | undefined) => void) | undefined;
  fetch?: typeof globalThis.fetch | undefined;
  /** Milliseconds in which an answer has to begin, and in which something has to come in a stream. Default: 60,000. */
  timeout?: number | undefined;
  /** How often a request that was not begun is asked again. Default: 2. */
  maxRetries?: number | undefined;
}

export interface CallOptions {
  /** Ends the request; what a stream has generated until then is paid for. */
  signal?: AbortSignal | undefined;
  timeout?: number | undefined;
  maxRetries?: number | undefined;
}

export interface Call extends CallOptions {
  method?: "GET" | "POST" | "PUT" | "DELETE" | undefined;
  path: string;
  query?: Record<string, string | number | boolean | undefined> | undefined;
  body?: unknown;
  headers?: Record<string, string> | undefined;
  /** `none`: nobody needs to know who asks. */
  auth?: "required" | "none" | undefined;
  /** The name under which the gateway charges this once, however often it arrives. A new one, if true. */
  idempotencyKey?: string | true | undefined;
}

export interface Answer<T> {
  status: number;
  headers: Headers;
  body: T;
}

export interface EventStream {
  headers: Headers;
  events: AsyncGenerator<ServerSentEvent, void, undefined>;
}

export interface Transport {
  readonly url: string;
  readonly session: Session | undefined;
  readonly signer: Signer | undefined;
  /** An answer in one piece. */
  call<T>(call: Call): Promise<Answer<T>>;
  /** An answer as it comes. Whoever leaves the loop hangs up. */
  stream(call: Call): Promise<EventStream>;
  useSession(session: Session | undefined): void;
}

const RENEW_BEFORE_MS = 60_000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;

/**
 * A transport that signs in, renews, retries and gives up by itself.
 *
 * Asked again is what was certainly not begun (429, 503 and the like, as `Retry-After` says), and what got no answer
 * where it can be named by an idempotency key or changes nothing. Never a stream whose answer had begun.
 *
 * @throws FarLabsError `invalid_url`.
 */
export function createTransport(options: TransportOptions): Transport {
  const base = baseOf(options.url);
  const fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  let session = options.session;
  let signingIn: Promise<Session> | undefined;

  function useSession(next: Session | undefined): void {
    session = next;
    options.onSession?.(next);
  }

  async function credential(renew: boolean): Promise<string> {
    if (options.apiKey !== undefined) return options.apiKey;
    if (session !== undefined && !renew && Date.parse(session.expiresAt) - Date.now() > RENEW_BEFORE_MS) {
      return session.token;
    }
    const { signer } = options;
    if (signer === undefined) {
      if (session !== undefined && !renew) return session.token; // until the gateway says that it counts no more
      throw new AuthenticationError("this needs an API key or a wallet: give apiKey or signer", { code: "no_credential" });
    }
    signingIn ??= signIn(transport, signer).finally(() => (signingIn = undefined));
    return (await signingIn).token;
  }

  /** One answer with a status below 400, from the first try that gets one. */
  async function send(call: Call): Promise<{ response: Response; watch: Watch }> {
    const method = call.method ?? "GET";
    const tries = 1 + (call.maxRetries ?? options.maxRetries ?? 2);
    let key = call.idempotencyKey === true ? crypto.randomUUID() : call.idempotencyKey;
    let renew = false;
    for (let attempt = 1; ; attempt++) {
      const watch = new Watch(call.signal, call.timeout ?? options.timeout ?? 60_000);
      try {
        const headers = new Headers(call.headers);
        if (call.auth !== "none") headers.set("authorization", `Bearer ${await credential(renew)}`);
        if (key !== undefined) headers.set("idempotency-key", key);
        const init: RequestInit = { method, headers, signal: watch.signal };
        if (call.body !== undefined) {
          headers.set("content-type", "application/json");
          init.body = JSON.stringify(call.body);
        }
        const response = await watch.guard(fetch(urlOf(base, call), init));
        if (response.ok) return { response, watch };
        const error = await refusal(response, watch);
        watch.end();
        const expired = error instanceof AuthenticationError && options.apiKey === undefined && call.auth !== "none";
        if (expired && !renew && options.signer !== undefined) {
          renew = true; // once: a fresh token that is refused stays refused
          attempt--;
          continue;
        }
        if (expired) useSession(undefined);
        if (!CAN_RETRY.has(response.status) || error.code === "request_timeout" || attempt >= tries) throw error;
        if (call.idempotencyKey === true) key = crypto.randomUUID(); // it was refused: under this name nothing runs
        await pause(waitOf(error, attempt), call.signal);
      } catch (cause) {
        watch.end();
        const error = watch.explain(cause);
        const isSafe = method !== "POST" || key !== undefined;
        if (!(error instanceof ConnectionError) || !isSafe || attempt >= tries) throw error;
        await pause(FIRST_WAIT_MS * 2 ** (attempt - 1), call.signal);
      }
    }
  }

  const transport: Transport = {
    url: base,
    get session() {
      return session;
    },
    signer: options.signer,
    useSession,
    async call<T>(call: Call): Promise<Answer<T>> {
      const { response, watch } = await send(call);
      try {
        const text = await watch.guard(response.text());
        const isJson = text !== "" && (response.headers.get("content-type") ?? "").includes("json");
        return { status: response.status, headers: response.headers, body: (isJson ? JSON.parse(text) : text) as T };
      } catch (cause) {
        throw watch.explain(cause);
      } finally {
        watch.end();
      }
    },
    async stream(call: Call): Promise<EventStream> {
      const { response, watch } = await send({ ...call, headers: { accept: "text/event-stream", ...call.headers } });
      return { headers: response.headers, events: read(response, watch) };
    },
  };
  return transport;
}

async function* read(response: Response, watch: Watch): AsyncGenerator<ServerSentEvent, void, undefined> {
  const requestId = response.headers.get("x-far-request-id") ?? undefined;
  try {
    if (response.body !== null) yield* eventsOf(watch.chunks(response.body));
  } catch (cause) {
    const error = watch.explain(cause);
    if (!(error instanceof ConnectionError)) throw error;
    throw new StreamError("the answer broke off", { code: "stream_broken", requestId, cause });
  } finally {
    watch.hangUp();
  }
}

async function refusal(response: Response, watch: Watch): Promise<FarLabsError> {
  let body: unknown;
  try {
    body = JSON.parse(await watch.guard(response.text()));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause; // else it is somebody's in between, who does not speak our language
  }
  const after = Number(response.headers.get("retry-after-ms")) / 1000 || Number(response.headers.get("retry-after"));
  return errorOf(response.status, body, {
    retryAfter: Number.isFinite(after) && after > 0 ? after : undefined,
    requestId: response.headers.get("x-request-id") ?? undefined,
  });
}

function baseOf(url: string | URL): string {
  try {
    const parsed = new URL(url);
    if (parsed.protocol === "http:" || parsed.protocol === "https:") {
      return parsed.origin + parsed.pathname.replace(/\/+$/, "");
    }
  } catch {
    // said below
  }
  throw new FarLabsError(`${String(url)} is not the URL of a gateway: write http:// or https:// and its host`, {
    code: "invalid_url",
  });
}

function urlOf(base: string, { path, query }: Call): string {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return search === "" ? base + path : `${base}${path}?${search}`;
}

function waitOf(error: FarLabsError, attempt: number): number {
  const asked = error.retryAfter === undefined ? FIRST_WAIT_MS * 2 ** (attempt - 1) : error.retryAfter * 1000;
  if (asked > LONGEST_WAIT_MS) throw error; // whoever asked decides whether to wait for so long
  return asked;
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal?.aborted === true) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Watches one try: ends it when its caller says so, or when nothing has come for too long. */
class Watch {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #milliseconds: number;
  readonly #stop = () => this.#controller.abort();
  #isLate = false;

  constructor(outer: AbortSignal | undefined, milliseconds: number) {
    this.#outer = outer;
    this.#milliseconds = milliseconds;
    if (outer?.aborted === true) this.#stop();
    else outer?.addEventListener("abort", this.#stop, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** `next`, in time. */
  async guard<T>(next: Promise<T>): Promise<T> {
    const timer = setTimeout(() => {
      this.#isLate = true;
      this.#stop();
    }, this.#milliseconds);
    try {
      return await next;
    } finally {
      clearTimeout(timer);
    }
  }

  async *chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await this.guard(reader.read());
      if (done) return;
      yield value;
    }
  }

  /** Why it failed, in our words. */
  explain(cause: unknown): unknown {
    if (cause instanceof FarLabsError) return cause;
    if (this.#outer?.aborted === true) return this.#outer.reason;
    if (this.#isLate) {
      return new TimeoutError(`nothing came for ${this.#milliseconds / 1000} s`, { code: "timeout", retry: true, cause });
    }
    if (cause instanceof RangeError || cause instanceof SyntaxError) {
      return new StreamError(`this is no answer of a gateway: ${cause.message}`, { code: "not_understood", cause });
    }
    return new ConnectionError("the gateway cannot be reached", { code: "connection_failed", retry: true, cause });
  }

  end(): void {
    this.#outer?.removeEventListener("abort", this.#stop);
  }

  /** Whatever may still come is not wanted. */
  hangUp(): void {
    this.end();
    this.#stop();
  }
}
