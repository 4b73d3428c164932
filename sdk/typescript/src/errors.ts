/** What can go wrong, as one family. `code` never changes its meaning; `retry` says whether asking again can help. */

export interface Facts {
  code: string;
  status?: number | undefined;
  type?: string | undefined;
  param?: string | null | undefined;
  retry?: boolean | undefined;
  retryAfter?: number | undefined;
  requestId?: string | undefined;
  cause?: unknown;
}

/**
 * The parent of all errors that this package throws, bad arguments of its own included. What an `AbortSignal` gives as
 * its reason and what a wallet throws, such as its owner's refusal, are handed on as they are.
 */
export class FarLabsError extends Error {
  override readonly name: string = "FarLabsError";
  readonly code: string;
  /** Status of HTTP; undefined where there was no answer, or it broke off. */
  readonly status: number | undefined;
  readonly type: string | undefined;
  /** The parameter that it is about, such as `messages.0.role`. */
  readonly param: string | undefined;
  readonly retry: boolean;
  /** Seconds after which asking again can help. */
  readonly retryAfter: number | undefined;
  /** To be named when you ask the marketplace's operator. */
  readonly requestId: string | undefined;

  constructor(message: string, facts: Facts) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code;
    this.status = facts.status;
    this.type = facts.type;
    this.param = facts.param ?? undefined;
    this.retry = facts.retry ?? false;
    this.retryAfter = facts.retryAfter;
    this.requestId = facts.requestId;
  }
}

/** The gateway could not be reached, or hung up before it had answered. */
export class ConnectionError extends FarLabsError {
  override readonly name = "ConnectionError";
}

/** Nothing came for longer than `timeout`. */
export class TimeoutError extends FarLabsError {
  override readonly name = "TimeoutError";
}

/** An answer that had begun broke off: what came before is right, what it cost is told by `request(id)`. */
export class StreamError extends FarLabsError {
  override readonly name = "StreamError";
}

/** 400, 413, 415, 422: the request means nothing, or something that is not served. */
export class InvalidRequestError extends FarLabsError {
  override readonly name = "InvalidRequestError";
}

/** 401: no credential, or one that counts no more. */
export class AuthenticationError extends FarLabsError {
  override readonly name = "AuthenticationError";
}

/** 402: there is not enough money. `accepts` are the ways to pay, as x402 writes them. */
export class PaymentRequiredError extends FarLabsError {
  override readonly name = "PaymentRequiredError";
  readonly accepts: readonly Record<string, unknown>[];

  constructor(message: string, facts: Facts & { accepts?: readonly Record<string, unknown>[] | undefined }) {
    super(message, facts);
    this.accepts = facts.accepts ?? [];
  }
}

/** 403: the credential is good, and not for this. */
export class ForbiddenError extends FarLabsError {
  override readonly name = "ForbiddenError";
}

/** 404: there is no such thing, or it is somebody else's. */
export class NotFoundError extends FarLabsError {
  override readonly name = "NotFoundError";
}

/** 409: something else stands in the way, such as a request that was asked before. */
export class ConflictError extends FarLabsError {
  override readonly name = "ConflictError";
}

/** 429: too much in this minute, or a queue that is full. */
export class RateLimitError extends FarLabsError {
  override readonly name = "RateLimitError";
}

/** 5xx: the marketplace or its nodes could not do it. */
export class ServerError extends FarLabsError {
  override readonly name = "ServerError";
}

/** A receipt that proves nothing. */
export class ReceiptError extends FarLabsError {
  override readonly name = "ReceiptError";
}

/** A message that does not come from the gateway, or is an old one that somebody sends again. */
export class WebhookError extends FarLabsError {
  override readonly name = "WebhookError";
}

const BY_STATUS = new Map<number, new (message: string, facts: Facts) => FarLabsError>([
  [401, AuthenticationError],
  [402, PaymentRequiredError],
  [403, ForbiddenError],
  [404, NotFoundError],
  [409, ConflictError],
  [429, RateLimitError],
]);

/** Statuses at which nothing was begun, so that the same request may be sent again. */
export const CAN_RETRY: ReadonlySet<number | undefined> = new Set([408, 429, 502, 503, 504]);

/** What a body of the gateway's, of whatever shape, says of a failure. */
export function errorOf(status: number | undefined, body: unknown, facts: Partial<Facts> = {}): FarLabsError {
  const told = isObject(body) && isObject(body["error"]) ? body["error"] : {};
  const message = typeof told["message"] === "string" ? told["message"] : `the gateway answered with status ${status}`;
  const all = {
    retry: CAN_RETRY.has(status),
    ...facts,
    code: typeof told["code"] === "string" ? told["code"] : `http_${status ?? "error"}`,
    status,
    type: typeof told["type"] === "string" ? told["type"] : undefined,
    param: typeof told["param"] === "string" ? told["param"] : undefined,
    accepts: isObject(body) && Array.isArray(body["accepts"]) ? body["accepts"] : undefined,
  };
  if (status === undefined) return new StreamError(message, all);
  const Kind = BY_STATUS.get(status) ?? (status >= 500 ? ServerError : InvalidRequestError);
  return new Kind(message, all);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
