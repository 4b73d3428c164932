/** An answer that comes token by token. */

import { errorOf, FarLabsError, isObject, StreamError } from "./errors.js";
import type { ServerSentEvent } from "./sse.js";
import type { EventStream } from "./transport.js";
import type { DoneEvent, GeneratedText, GenerateAnswer, TokenEvent, VoucherEvent } from "./types.js";

/** Signs what a stream waits for, when it is paid by a channel. `tokens`: how many have come until then. */
export type PayVoucher = (needed: VoucherEvent, tokens: number) => Promise<void>;

/** Where a request stands that waits for its turn. */
export interface Place {
  /** In the queue, from 1. At 0 its turn has come, and nodes with room for it are being found. */
  position: number;
  /** What all are waiting for, such as a part of the model that nobody serves now. */
  obstacle: string | undefined;
}

/** Told each time that a request's place changes. */
export type OnWait = (place: Place) => void | Promise<void>;

const QUEUED = /^queued (?:(\d{1,9})|at the nodes)(?:, (.+))?$/s;

/** What a request may ask for (`n`): a higher index is none. */
const MOST_ANSWERS = 128;

/** What a whole answer came to, in the shape in which the gateway gives one that is not streamed. */
export type GenerationResult = GenerateAnswer;

/**
 * The text of an answer, piece by piece: `for await (const text of generation)`. Leaving the loop hangs up, and what
 * was generated until then is paid for. The bill comes last: {@link Generation.result}.
 */
export class Generation implements AsyncIterable<string> {
  readonly #begin: () => Promise<EventStream>;
  readonly #pay: PayVoucher | undefined;
  readonly #onWait: OnWait | undefined;
  readonly #texts: Required<GeneratedText>[] = [];
  #tokens = 0;
  #isRead = false;
  #done: DoneEvent | undefined;
  #requestId: string | undefined;

  constructor(begin: () => Promise<EventStream>, pay?: PayVoucher, onWait?: OnWait) {
    this.#begin = begin;
    this.#pay = pay;
    this.#onWait = onWait;
  }

  /** The name of the request at the gateway, once the answer has begun: `request(id)` tells what became of it. */
  get requestId(): string | undefined {
    return this.#requestId;
  }

  /** What came so far: of several answers, the first. */
  get text(): string {
    return this.#texts[0]?.text ?? "";
  }

  /** Usage, cost and who served it, once the stream has ended. */
  get done(): DoneEvent | undefined {
    return this.#done;
  }

  /** The text of the first answer. @throws as {@link Generation.events}. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    for await (const event of this.events()) if (event.token !== "" && (event.index ?? 0) === 0) yield event.token;
  }

  /**
   * The pieces with all that is told of them: which of several answers, log probabilities, calls of tools.
   *
   * @throws StreamError the answer broke off; FarLabsError it failed, or `already_read`.
   */
  async *events(): AsyncGenerator<TokenEvent, void, undefined> {
    if (this.#isRead) {
      throw new FarLabsError("an answer can be read once: keep what comes, or ask again", { code: "already_read" });
    }
    this.#isRead = true;
    const stream = await this.#begin();
    this.#requestId = stream.headers.get("x-far-request-id") ?? undefined;
    for await (const item of stream.items) {
      if ("comment" in item) {
        const place = placeOf(item.comment);
        if (place !== undefined) await this.#onWait?.(place);
        continue;
      }
      const told = this.#parsed(item);
      if ("done" in told) {
        this.#done = told;
        return;
      }
      if ("type" in told) {
        await this.#payFor(told);
      } else {
        this.#tokens++;
        this.#keep(told);
        yield told;
      }
    }
    throw new StreamError("the answer broke off before its end", {
      code: "stream_broken",
      requestId: this.#requestId,
    });
  }

  /**
   * All of it: reads what was not read yet.
   *
   * @throws as {@link Generation.events}, and StreamError `not_ended`: the loop was left before the end.
   */
  async result(): Promise<GenerationResult> {
    if (!this.#isRead) for await (const _ of this.events());
    if (this.#done === undefined) {
      throw new StreamError("the answer was not read to its end", { code: "not_ended", requestId: this.#requestId });
    }
    const { done: _, finish_reasons: reasons, ...bill } = this.#done;
    const count = Math.max(reasons?.length ?? 1, this.#texts.length);
    const texts = Array.from({ length: count }, (_, index) => ({
      ...this.#textOf(index),
      finish_reason: reasons?.[index] ?? bill.finish_reason,
    }));
    const { text, tool_calls, logprobs } = this.#textOf(0);
    const choices = count > 1 ? texts : null;
    return { ...bill, text, tool_calls, logprobs, choices, tokens_generated: bill.completion_tokens };
  }

  #textOf(index: number): Required<GeneratedText> {
    for (let next = this.#texts.length; next <= index; next++) {
      this.#texts.push({ index: next, text: "", tool_calls: null, finish_reason: "", logprobs: null });
    }
    return this.#texts[index] as Required<GeneratedText>;
  }

  #keep(told: TokenEvent): void {
    const one = this.#textOf(told.index ?? 0);
    one.text += told.token;
    if (told.tool_calls != null) one.tool_calls = [...(one.tool_calls ?? []), ...told.tool_calls];
    if (told.logprob != null) (one.logprobs ??= []).push(told.logprob);
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
      const index = told["index"] ?? 0;
      const isIndex = Number.isInteger(index) && (index as number) >= 0 && (index as number) < MOST_ANSWERS;
      if (typeof told["token"] === "string" && isIndex) return told as unknown as TokenEvent;
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
    await this.#pay(needed, this.#tokens);
  }
}

/** What a comment of a stream says of the queue, if it says anything. */
function placeOf(comment: string): Place | undefined {
  const [all, position = "0", obstacle] = QUEUED.exec(comment) ?? [];
  return all === undefined ? undefined : { position: Number(position), obstacle };
}
