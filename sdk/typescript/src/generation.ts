/** An answer that comes token by token. */

import { errorOf, FarLabsError, isObject, StreamError } from "./errors.js";
import type { ServerSentEvent } from "./sse.js";
import type { EventStream } from "./transport.js";
import type { DoneEvent, TokenEvent, VoucherEvent } from "./types.js";

/** Signs what a stream waits for, when it is paid by a channel. */
export type PayVoucher = (needed: VoucherEvent) => Promise<void>;

/** What a whole answer came to. */
export type GenerationResult = Omit<DoneEvent, "done"> & { text: string };

/**
 * The text of an answer, piece by piece: `for await (const text of generation)`. Leaving the loop hangs up, and what
 * was generated until then is paid for. The bill comes last: {@link Generation.result}.
 */
export class Generation implements AsyncIterable<string> {
  readonly #begin: () => Promise<EventStream>;
  readonly #pay: PayVoucher | undefined;
  #isRead = false;
  #text = "";
  #done: DoneEvent | undefined;
  #requestId: string | undefined;

  constructor(begin: () => Promise<EventStream>, pay?: PayVoucher) {
    this.#begin = begin;
    this.#pay = pay;
  }

  /** The name of the request at the gateway, once the answer has begun. */
  get requestId(): string | undefined {
    return this.#requestId;
  }

  /** What came so far: of several answers, the first. */
  get text(): string {
    return this.#text;
  }

  /** Usage, cost and who served it, once the stream has ended. */
  get done(): DoneEvent | undefined {
    return this.#done;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    for await (const event of this.events()) if (event.token !== "" && (event.index ?? 0) === 0) yield event.token;
  }

  /**
   * The pieces with all that is told of them: which of several answers, log probabilities, calls of tools.
   *
   * @throws StreamError the answer broke off; FarLabsError it failed; TypeError it was read before.
   */
  async *events(): AsyncGenerator<TokenEvent, void, undefined> {
    if (this.#isRead) throw new TypeError("an answer can be read once: keep what comes, or ask again");
    this.#isRead = true;
    const stream = await this.#begin();
    this.#requestId = stream.headers.get("x-far-request-id") ?? undefined;
    for await (const event of stream.events) {
      const told = this.#parsed(event);
      if ("done" in told) {
        this.#done = told;
        return;
      }
      if ("type" in told) {
        await this.#payFor(told);
      } else {
        if ((told.index ?? 0) === 0) this.#text += told.token;
        yield told;
      }
    }
    throw new StreamError("the answer broke off before its end", {
      code: "stream_broken",
      requestId: this.#requestId,
    });
  }

  /** All of it: reads what was not read yet. */
  async result(): Promise<GenerationResult> {
    if (!this.#isRead) for await (const _ of this.events());
    if (this.#done === undefined) {
      throw new StreamError("the answer was not read to its end", { code: "not_ended", requestId: this.#requestId });
    }
    const { done: _, ...bill } = this.#done;
    return { ...bill, text: this.#text };
  }

  #parsed(event: ServerSentEvent): TokenEvent | DoneEvent | VoucherEvent {
    let told: unknown;
    try {
      told = JSON.parse(event.data);
    } catch {
      told = undefined;
    }
    if (isObject(told)) {
      if (isObject(told["error"])) throw errorOf(undefined, told, { requestId: this.#requestId });
      if (told["done"] === true) return told as unknown as DoneEvent;
      if (told["type"] === "voucher_needed") return told as unknown as VoucherEvent;
      if (typeof told["token"] === "string") return told as unknown as TokenEvent;
    }
    throw new StreamError("an event of the stream means nothing", {
      code: "not_understood",
      requestId: this.#requestId,
    });
  }

  async #payFor(needed: VoucherEvent): Promise<void> {
    if (this.#pay === undefined) {
      throw new FarLabsError("the stream waits for a voucher: give onVoucher, or pay by balance", {
        code: "voucher_needed",
        requestId: this.#requestId,
      });
    }
    await this.#pay(needed);
  }
}
