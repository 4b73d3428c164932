import {
  type Receipt,
  ReceiptError,
  type RequestReceipts,
  type Verified,
  verifyReceipt,
  verifyReceipts,
} from "farlabs";
import { blocks as inWords } from "@/components/network/network";
import { count, short } from "@/lib/format";

export interface Check {
  name: string;
  /** What was found. */
  says: string;
  isGood: boolean;
}

/** What the receipts are held against: the model that was asked for, as the gateway describes it. */
export interface Expected {
  modelDigest: string;
  blockCount: number;
}

/**
 * Checks the receipts of a request, in this browser: each signature, then all of them against each other, against what
 * the gateway says, and against the model.
 *
 * @throws FarLabsError `cannot_verify`: this browser cannot check such signatures.
 */
export async function checksOf(told: RequestReceipts, expected: Expected | undefined): Promise<Check[]> {
  if (told.receipts.length === 0) {
    return [bad("There are receipts", "The gateway has none of this request: no node is paid for it.")];
  }
  const checks: Check[] = [];
  for (const one of told.receipts) {
    const receipt = await attempt(verifyReceipt(one.receipt));
    checks.push(outcome(`Signed by ${short(one.node_id)}`, receipt, signedInWords));
  }
  if (checks.some(({ isGood }) => !isGood)) return checks; // what the others say of each other counts for nothing then
  const all = await attempt(verifyReceipts(told));
  checks.push(outcome("The gateway says what the nodes have signed", all, agreedInWords));
  if (all instanceof ReceiptError || expected === undefined) return checks;
  return [...checks, isOfModel(all, told.model_id, expected), isWhole(all, expected)];
}

/** The receipts as a file: what the gateway told, which both SDKs read. */
export function receiptsFile(told: RequestReceipts): { name: string; text: string } {
  const name = `receipts-${told.request_id.replace(/[^\w-]/g, "_")}.json`;
  return { name, text: `${JSON.stringify(told, null, 2)}\n` };
}

function signedInWords({ firstBlock, endBlock, positions, tokenLayers }: Receipt): string {
  return `It says: ran ${inWords(firstBlock, endBlock)} for ${count(positions)} positions, ${count(tokenLayers)} token-layers.`;
}

function agreedInWords({ tokenLayers }: Verified): string {
  return `Nodes, wallets, blocks and work are the same, and nobody is paid for more than was signed: ${count(tokenLayers)} token-layers.`;
}

function isOfModel({ receipts }: Verified, model: string, { modelDigest }: Expected): Check {
  const name = "It was the model that was asked for";
  return receipts.every((one) => one.modelDigest === modelDigest)
    ? good(name, `All of them name ${short(modelDigest, 10, 6)}, the digest of ${model}.`)
    : bad(name, `They name another digest than ${model} has now.`);
}

function isWhole({ blocks }: Verified, { blockCount }: Expected): Check {
  const [only] = blocks;
  const isAll = blocks.length === 1 && only?.[0] === 0 && only[1] === blockCount;
  const says = `The receipts are for ${blocks.map(([first, end]) => inWords(first, end)).join(", ")}; the model has ${blockCount} blocks.`;
  return { name: "Every block was run", says, isGood: isAll };
}

function outcome<T>(name: string, found: T | ReceiptError, says: (found: T) => string): Check {
  return found instanceof ReceiptError ? bad(name, `Not valid: ${found.message}.`) : good(name, says(found));
}

function good(name: string, says: string): Check {
  return { name, says, isGood: true };
}

function bad(name: string, says: string): Check {
  return { name, says, isGood: false };
}

/** What it came to, or what is wrong with the receipt. */
async function attempt<T>(checking: Promise<T>): Promise<T | ReceiptError> {
  try {
    return await checking;
  } catch (error) {
    if (error instanceof ReceiptError) return error;
    throw error;
  }
}
