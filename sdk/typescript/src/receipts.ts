/**
 * Receipts: what a node says it did, signed with its key. Checked here with nobody's help.
 *
 * A receipt is JSON text (`body`), the peer id of its signer, and an ed25519 signature (RFC 8032) over the name of its
 * kind, a line feed and `body`. A peer id contains the key itself: base58 of an identity multihash
 * (https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md).
 */

import { FarLabsError, isObject, ReceiptError } from "./errors.js";
import type { RequestReceipts } from "./types.js";

/** A node ran blocks `[firstBlock, endBlock)` for so many positions of a session. */
export interface Receipt {
  peerId: string;
  wallet: string;
  sessionId: string;
  modelDigest: string;
  firstBlock: number;
  endBlock: number;
  quantization: string;
  positions: number;
  /** `positions × (endBlock - firstBlock)`: what is paid for. */
  tokenLayers: number;
  /** Of the positions, how many were known from an earlier session, and how many brought it to where a lost node was. */
  cachedPositions: number;
  replayedPositions: number;
  /** Unix time, in seconds. */
  issuedAt: number;
}

/** What the receipts of a request prove. */
export interface Verified {
  receipts: Receipt[];
  tokenLayers: number;
  /** Every block that somebody has a receipt for, as ranges `[first, end)` without gaps between. */
  blocks: [number, number][];
}

const DOMAIN = "far-mesh/receipt/v1";
const MAX_DOCUMENT_CHARACTERS = 16 * 1024;
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/** Identity multihash of 36 bytes: a protobuf PublicKey of type Ed25519 with 32 bytes. */
const PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/**
 * A receipt, once the signature and all that it says of itself are right.
 *
 * @throws ReceiptError with the first thing that is wrong.
 */
export async function verifyReceipt(document: string): Promise<Receipt> {
  if (document.length > MAX_DOCUMENT_CHARACTERS) throw wrong("the document is too long");
  const outer = parsed(document);
  const { body, signer, signature } = outer;
  if (typeof body !== "string" || typeof signer !== "string" || typeof signature !== "string") {
    throw wrong("this is not a signed document");
  }
  if (!(await isSigned(keyOf(signer), bytesOf(signature), new TextEncoder().encode(`${DOMAIN}\n${body}`)))) {
    throw wrong(`the signature is not that of ${signer}`);
  }
  const said = parsed(body);
  if ((said["version"] ?? 1) !== 1) throw wrong("this is a receipt of another version");
  const receipt: Receipt = {
    peerId: textOf(said, "peer_id"),
    wallet: textOf(said, "wallet", /^0x[0-9a-fA-F]{40}$/),
    sessionId: textOf(said, "session_id", /^[0-9a-f]{32}$/),
    modelDigest: textOf(said, "model_digest", /^[0-9a-f]{64}$/),
    firstBlock: countOf(said, "first_block"),
    endBlock: countOf(said, "end_block"),
    quantization: textOf(said, "quantization"),
    positions: countOf(said, "positions"),
    tokenLayers: countOf(said, "token_layers"),
    cachedPositions: countOf(said, "cached_positions", 0),
    replayedPositions: countOf(said, "replayed_positions", 0),
    issuedAt: countOf(said, "issued_at"),
  };
  if (receipt.peerId !== signer) throw wrong(`${signer} signed the receipt of ${receipt.peerId}`);
  if (receipt.firstBlock >= receipt.endBlock) throw wrong("the block range is empty");
  if (receipt.tokenLayers !== receipt.positions * (receipt.endBlock - receipt.firstBlock)) {
    throw wrong("token_layers is not positions × blocks");
  }
  if (Math.max(receipt.cachedPositions, receipt.replayedPositions) > receipt.positions) {
    throw wrong("more positions were cached or replayed than there were");
  }
  return receipt;
}

/**
 * The receipts of a request, each right by itself and the same as the gateway says of it: the node, its wallet, its
 * blocks, and the work that it is paid for; all of one model.
 *
 * @throws ReceiptError with the first thing that is wrong.
 */
export async function verifyReceipts(told: RequestReceipts): Promise<Verified> {
  const receipts: Receipt[] = [];
  for (const one of told.receipts) {
    const receipt = await verifyReceipt(one.receipt);
    const isSame =
      receipt.peerId === one.node_id &&
      receipt.wallet === one.wallet_address &&
      receipt.firstBlock === one.layers[0] &&
      receipt.endBlock === (one.layers.at(-1) ?? -1) + 1 &&
      receipt.quantization === one.quantization;
    if (!isSame) throw wrong(`what is said of ${one.node_id} is not what it has signed`);
    if (one.token_layers > receipt.tokenLayers) throw wrong(`${one.node_id} is paid for more than it has signed for`);
    if (receipts.some((other) => other.modelDigest !== receipt.modelDigest)) throw wrong("two models served one request");
    receipts.push(receipt);
  }
  const tokenLayers = told.receipts.reduce((sum, one) => sum + one.token_layers, 0);
  return { receipts, tokenLayers, blocks: union(receipts.map((one) => [one.firstBlock, one.endBlock])) };
}

/** @throws FarLabsError `cannot_verify`: a page without https, or a browser older than of 2025, has no ed25519. */
async function isSigned(
  key: Uint8Array<ArrayBuffer>,
  signature: Uint8Array<ArrayBuffer>,
  text: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  let verifier: CryptoKey;
  try {
    verifier = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  } catch (cause) {
    const message = "signatures of nodes (ed25519) cannot be checked here: it takes https and a browser that knows them";
    throw new FarLabsError(message, { code: "cannot_verify", cause });
  }
  return crypto.subtle.verify("Ed25519", verifier, signature, text);
}

function union(ranges: [number, number][]): [number, number][] {
  const joined: [number, number][] = [];
  for (const [first, end] of ranges.sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1);
    if (last !== undefined && first <= last[1]) last[1] = Math.max(last[1], end);
    else joined.push([first, end]);
  }
  return joined;
}

function keyOf(peerId: string): Uint8Array<ArrayBuffer> {
  if (peerId.length > 64) throw wrong("this is no peer id");
  let number = 0n;
  for (const character of peerId) {
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) throw wrong("this is no peer id");
    number = number * 58n + BigInt(digit);
  }
  const leading = /^1*/.exec(peerId)?.[0].length ?? 0; // zero bytes at the beginning are written as ones
  const bytes = new Uint8Array(new ArrayBuffer(PREFIX.length + 32));
  for (let at = bytes.length - 1; at >= 0; at--, number >>= 8n) bytes[at] = Number(number & 255n);
  const zeros = bytes.findIndex((byte) => byte !== 0);
  if (number !== 0n || leading !== zeros || PREFIX.some((byte, at) => bytes[at] !== byte)) {
    throw wrong("this is not the peer id of an ed25519 key");
  }
  return bytes.slice(PREFIX.length);
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  if (!/^[A-Za-z0-9+/]{86}==$/.test(base64)) throw wrong("the signature is not base64 of 64 bytes");
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function parsed(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // said below
  }
  throw wrong("this is not a signed document");
}

function textOf(said: Record<string, unknown>, name: string, form?: RegExp): string {
  const value = said[name];
  if (typeof value !== "string") throw wrong(`${name} is missing`);
  if (form?.test(value) === false) throw wrong(`${name} is malformed`);
  return value;
}

function countOf(said: Record<string, unknown>, name: string, otherwise?: number): number {
  const value = said[name] ?? otherwise;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw wrong(`${name} is no count`);
  return value;
}

function wrong(message: string): ReceiptError {
  return new ReceiptError(message, { code: "receipt_invalid" });
}
