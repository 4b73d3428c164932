/** A server that answers by a script, and writes down what it was asked. */

import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A piece of a body, or milliseconds to wait before the next. */
export type Part = string | Uint8Array | number;

/** Hang up. */
export const CUT = "\0cut";
/** Never end. */
export const HOLD = "\0hold";

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  parts?: readonly Part[];
}

export interface Seen {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: unknown;
}

/** A reply that is JSON. */
export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Reply {
  return { status, headers: { "content-type": "application/json", ...headers }, parts: [JSON.stringify(body)] };
}

/** A refusal in the gateway's words. */
export function refusal(status: number, code: string, headers: Record<string, string> = {}): Reply {
  return json({ error: { message: `no: ${code}`, type: "some_error", param: null, code } }, status, headers);
}

/** A stream of events. */
export function stream(...parts: readonly (Part | object)[]): Reply {
  return {
    headers: { "content-type": "text/event-stream", "x-far-request-id": "req_1" },
    parts: parts.map((part) => (typeof part === "object" && !(part instanceof Uint8Array) ? event(part) : part)),
  };
}

export function event(told: object): string {
  return `data: ${JSON.stringify(told)}\n\n`;
}

/** What a gateway has a wallet sign (EIP-4361). */
export function signInMessage(address: string, domain = "far.test"): string {
  const words = `${domain} wants you to sign in with your Ethereum account:\n${address}\n\nSign in to Far Mesh.\n\n`;
  return `${words}URI: https://${domain}\nVersion: 1\nChain ID: 1\nNonce: abcdefgh12345678`;
}

export type Script = readonly Reply[] | ((seen: Seen) => Reply | Promise<Reply>);

/** All that comes. */
export async function allOf<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

export class RecordedServer {
  readonly seen: Seen[] = [];
  /** How many answers were not waited for to their end. */
  hangUps = 0;
  readonly #http;
  readonly #script: Script;

  constructor(script: Script) {
    this.#script = script;
    this.#http = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const seen = {
          method: request.method ?? "",
          path: request.url ?? "",
          headers: request.headers,
          body: text === "" ? undefined : (JSON.parse(text) as unknown),
        };
        this.seen.push(seen);
        void this.#answer(seen, response);
      });
    });
  }

  static async start(script: Script): Promise<RecordedServer> {
    const server = new RecordedServer(script);
    await new Promise<void>((resolve) => server.#http.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  async #answer(seen: Seen, response: ServerResponse): Promise<void> {
    const reply = typeof this.#script === "function" ? await this.#script(seen) : this.#script[this.seen.length - 1];
    if (reply === undefined) {
      response.writeHead(599).end("the script is over");
      return;
    }
    response.on("close", () => {
      if (!response.writableFinished) this.hangUps++;
    });
    const parts = reply.parts ?? [];
    if (parts[0] === CUT) {
      response.destroy();
      return;
    }
    response.writeHead(reply.status ?? 200, reply.headers);
    response.flushHeaders();
    for (const part of parts) {
      if (part === HOLD) return;
      if (part === CUT) {
        await new Promise((resolve) => setTimeout(resolve, 20)); // what was written goes out first
        response.destroy();
        return;
      }
      if (typeof part === "number") await new Promise((resolve) => setTimeout(resolve, part));
      else response.write(part);
    }
    response.end();
  }
}
