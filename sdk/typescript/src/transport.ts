/** How requests go to a gateway: who asks, how long it may take, what is asked again. */

import { signIn, type Session } from "./actions/signIn.js";
import {
  AuthenticationError,
  CAN_RETRY,
  ConnectionError,
  errorOf,
  FarLabsError,
  isObject,
  StreamError,
  TimeoutError,
} from "./errors.js";
import type { Signer } from "./signer.js";
import { itemsOf, type StreamItem } from "./sse.js";

export const DEFAULT_URL = "https://api.farlabs.ai";

export interface TransportOptions {
  /** Where the gateway is; in a page that it serves itself, `location.origin`. Default: {@link DEFAULT_URL}. */
  url?: string | URL | undefined;
  /** A key made with `createApiKey`. Goes before `signer`. */
  apiKey?: string | undefined;
  /** The wallet that signs in when that is needed, and again before the token runs out. */
  signer?: Signer | undefined;
  /** The domain that sign-in messages name, where that is not the host of `url`. */
  signInDomain?: string | undefined;
  /** A token from before, such as one that a page has kept. One of another wallet than the signer's is not used. */
  session?: Session | undefined;
  /** Told of each new token, and with undefined when there is none any more. */
  onSession?: ((session: Session | undefined) => void) | undefined;
  fetch?: typeof globalThis.fetch | undefined;
  /**
   * Milliseconds in which an answer has to begin, and in which something has to come in a stream. Default: 60,000;
   * `Infinity`: as long as it takes.
   */
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
  /** Whether it comes to the same if it arrives twice. Default: unless it is a POST without an idempotency key. */
  repeatable?: boolean | undefined;
  /** Statuses from 400 on that are answers as well. */
  accept?: readonly number[] | undefined;
  /** What the answer is: parsed JSON (default), or its text. */
  as?: "json" | "text" | undefined;
}

export interface Answer<T> {
  status: number;
  headers: Headers;
  body: T;
}

export interface EventStream {
  headers: Headers;
  /** To be read to its end or left early: either hangs up. */
  items: AsyncGenerator<StreamItem, void, undefined>;
}

export interface Transport {
  readonly url: string;
  readonly session: Session | undefined;
  readonly signer: Signer | undefined;
  readonly signInDomain: string | undefined;
  /** An answer in one piece. */
  call<T>(call: Call): Promise<Answer<T>>;
  /** An answer as it comes. Whoever leaves the loop hangs up. */
  stream(call: Call): Promise<EventStream>;
  /** Sign in, unless it is being done: whoever asks meanwhile gets the same token. */
  signIn(options?: CallOptions): Promise<Session>;
  useSession(session: Session | undefined): void;
}

const RENEW_BEFORE_MS = 60_000;
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * A transport that signs in, renews, retries and gives up by itself.
 *
 * Asked again is what was certainly not begun (429, 503 and the like, as `Retry-After` says), and what got no answer
 * where it can be named by an idempotency key or changes nothing. Never a stream whose answer had begun.
 *
 * @throws FarLabsError `invalid_url`, `invalid_key`.
 */
export function createTransport(options: TransportOptions): Transport {
  const base = baseOf(options.url ?? DEFAULT_URL);
  const fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
  const { apiKey, signer } = options;
  if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
    throw new FarLabsError("this is no API key: they are letters, digits and dashes", { code: "invalid_key" });
  }
  let session = isOf(signer, options.session) ? options.session : undefined;
  let signingIn: Promise<Session> | undefined;

  function useSession(next: Session | undefined): void {
    session = next;
    options.onSession?.(next);
  }

  async function signInOnce({ signal, ...call }: CallOptions = {}): Promise<Session> {
    if (signer === undefined) {
      throw new AuthenticationError("this needs an API key or a wallet: give apiKey or signer", { code: "no_credential" });
    }
    signingIn ??= signIn(transport, signer, call).finally(() => (signingIn = undefined));
    return unlessAborted(signingIn, signal); // who gives up leaves it to the others
  }

  /** What proves who asks; another one than `refused`. */
  async function credential(refused: string | undefined, signal: AbortSignal | undefined): Promise<string> {
    if (apiKey !== undefined) return apiKey;
    if (session !== undefined && session.token !== refused) {
      const isFresh = Date.parse(session.expiresAt) - Date.now() > RENEW_BEFORE_MS;
      if (isFresh || signer === undefined) return session.token; // until the gateway says that it counts no more
    }
    return (await signInOnce({ signal })).token;
  }

  /** One answer with a status that is one, from the first try that gets it. */
  async function send(call: Call): Promise<{ response: Response; watch: Watch }> {
    const method = call.method ?? "GET";
    const tries = 1 + (call.maxRetries ?? options.maxRetries ?? 2);
    const body = call.body === undefined ? undefined : jsonOf(call.body);
    let key = call.idempotencyKey === true ? newKey() : call.idempotencyKey;
    const isRepeatable = call.repeatable ?? (method !== "POST" || key !== undefined);
    let refused: string | undefined;
    for (let attempt = 1; ; attempt++) {
      call.signal?.throwIfAborted();
      const headers = new Headers(call.headers);
      const token = call.auth === "none" ? undefined : await credential(refused, call.signal);
      if (token !== undefined) headers.set("authorization", `Bearer ${token}`);
      if (key !== undefined) headers.set("idempotency-key", key);
      const init: RequestInit = { method, headers, redirect: "manual" };
      if (body !== undefined) {
        headers.set("content-type", "application/json");
        init.body = body;
      }
      const watch = new Watch(call.signal, call.timeout ?? options.timeout ?? 60_000);
      let error: FarLabsError;
      try {
        const response = await watch.guard(fetch(urlOf(base, call), { ...init, signal: watch.signal }));
        if (response.ok || call.accept?.includes(response.status) === true) return { response, watch };
        const { told, isOurs } = await refusal(response, watch);
        error = told;
        watch.hangUp();
        if (isOurs && call.idempotencyKey === true) key = newKey(); // under the old one nothing runs, and nothing can
      } catch (cause) {
        watch.hangUp();
        const failed = watch.explain(cause);
        if (!(failed instanceof ConnectionError) || !isRepeatable) throw failed;
        error = failed;
      }
      if (error instanceof AuthenticationError && token !== undefined && apiKey === undefined) {
        if (refused === undefined && signer !== undefined) {
          refused = token; // once: a fresh token that is refused stays refused
          attempt--;
          continue;
        }
        if (session?.token === token) useSession(undefined);
      }
      const again = error instanceof ConnectionError || (CAN_RETRY.has(error.status) && error.code !== "request_timeout");
      if (!again || attempt >= tries) throw error;
      const wait = waitOf(error, attempt);
      if (wait > LONGEST_WAIT_MS) throw error; // whoever asked decides whether to wait for so long
      await pause(wait, call.signal);
    }
  }

  const transport: Transport = {
    url: base,
    get session() {
      return session;
    },
    signer,
    signInDomain: options.signInDomain,
    signIn: signInOnce,
    useSession,
    async call<T>(call: Call): Promise<Answer<T>> {
      const { response, watch } = await send(call);
      const { status, headers } = response;
      try {
        const text = await watch.guard(response.text());
        if (call.as === "text" || status === 204) return { status, headers, body: text as T };
        const body: unknown = JSON.parse(text);
        if (typeof body !== "object" || body === null) throw notUnderstood(headers);
        return { status, headers, body: body as T };
      } catch (cause) {
        throw cause instanceof SyntaxError ? notUnderstood(headers, cause) : watch.explain(cause);
      } finally {
        watch.hangUp();
      }
    },
    async stream(call: Call): Promise<EventStream> {
      const { response, watch } = await send({ ...call, headers: { accept: "text/event-stream", ...call.headers } });
      const { headers } = response;
      if (!(headers.get("content-type") ?? "").startsWith("text/event-stream")) {
        watch.hangUp();
        throw notUnderstood(headers);
      }
      return { headers, items: read(response, watch) };
    },
  };
  return transport;
}

async function* read(response: Response, watch: Watch): AsyncGenerator<StreamItem, void, undefined> {
  const requestId = response.headers.get("x-far-request-id") ?? undefined;
  try {
    if (response.body !== null) yield* itemsOf(watch.chunks(response.body));
  } catch (cause) {
    if (cause instanceof RangeError) {
      throw new StreamError(cause.message, { code: "not_understood", requestId, cause });
    }
    const error = watch.explain(cause);
    if (!(error instanceof ConnectionError)) throw error;
    throw new StreamError("the answer broke off", { code: "stream_broken", requestId, cause });
  } finally {
    watch.hangUp();
  }
}

/** What a gateway says when it refuses; `isOurs` tells whether it was a gateway, or somebody on the way to it. */
async function refusal(response: Response, watch: Watch): Promise<{ told: FarLabsError; isOurs: boolean }> {
  const { status, headers } = response;
  if (response.type === "opaqueredirect" || (status >= 300 && status < 400)) {
    const to = headers.get("location");
    const message = `${response.url} sends elsewhere${to === null ? "" : `, to ${to}`}: give the gateway's own address`;
    return { told: new FarLabsError(message, { code: "redirected", status }), isOurs: false };
  }
  let body: unknown;
  try {
    body = JSON.parse(await watch.guard(response.text()));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause; // else it is somebody's in between, who does not speak our language
  }
  const told = errorOf(status, body, { retryAfter: secondsOf(headers), requestId: requestIdOf(headers) });
  return { told, isOurs: isObject(body) && isObject(body["error"]) };
}

/** `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3). */
function secondsOf(headers: Headers): number | undefined {
  const milliseconds = headers.get("retry-after-ms");
  const after = headers.get("retry-after");
  let seconds = milliseconds === null ? Number(after) : Number(milliseconds) / 1000;
  if (Number.isNaN(seconds) && after !== null) seconds = (Date.parse(after) - Date.now()) / 1000;
  return seconds > 0 && seconds < Infinity ? seconds : undefined;
}

function requestIdOf(headers: Headers): string | undefined {
  return headers.get("x-far-request-id") ?? headers.get("x-request-id") ?? undefined;
}

function notUnderstood(headers: Headers, cause?: unknown): FarLabsError {
  const facts = { code: "not_understood", requestId: requestIdOf(headers), cause };
  return new FarLabsError("this is no answer of a gateway: is the address right?", facts);
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

function jsonOf(body: unknown): string {
  try {
    return JSON.stringify(body);
  } catch (cause) {
    throw new FarLabsError(`this cannot be written as JSON: ${String(cause)}`, { code: "invalid_argument", cause });
  }
}

/** 128 random bits; `crypto.randomUUID` is for pages of https alone. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether a token is for the wallet that signs. */
function isOf(signer: Signer | undefined, session: Session | undefined): boolean {
  return signer === undefined || session?.walletAddress.toLowerCase() === signer.address.toLowerCase();
}

function waitOf(error: FarLabsError, attempt: number): number {
  return error.retryAfter === undefined ? FIRST_WAIT_MS * 2 ** (attempt - 1) : error.retryAfter * 1000;
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds)));
  return unlessAborted(over, signal).finally(() => clearTimeout(timer));
}

/** `next`, unless `signal` is first. */
function unlessAborted<T>(next: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return next;
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    next.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
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

  /** `next`, in time; also where whoever fetches does not heed signals. */
  async guard<T>(next: Promise<T>): Promise<T> {
    const late = () => {
      this.#isLate = true;
      this.#stop();
    };
    const timer = this.#milliseconds <= LONGEST_TIMER_MS ? setTimeout(late, this.#milliseconds) : undefined;
    try {
      return await unlessAborted(next, this.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  async *chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = body.getReader();
    try {
      for (;;) {
        const { done, value } = await this.guard(reader.read());
        if (done) return;
        yield value;
      }
    } finally {
      reader.cancel().catch(() => undefined); // it has failed already, or has ended
    }
  }

  /** Why it failed, in our words. */
  explain(cause: unknown): unknown {
    if (cause instanceof FarLabsError) return cause;
    if (this.#outer?.aborted === true) return this.#outer.reason;
    if (this.#isLate) {
      return new TimeoutError(`nothing came for ${this.#milliseconds / 1000} s`, { code: "timeout", retry: true, cause });
    }
    return new ConnectionError("the gateway cannot be reached", { code: "connection_failed", retry: true, cause });
  }

  /** Whatever may still come is not wanted. */
  hangUp(): void {
    this.#outer?.removeEventListener("abort", this.#stop);
    this.#stop();
  }
}
