import { afterEach, describe, expect, it, vi } from "vitest";
import { ReceiptError, type RequestReceipts, verifyReceipt, verifyReceipts } from "../src/index.js";
import { fixtures } from "./fixtures.js";

const HONEST = fixtures.receipts[0]?.document ?? "";

afterEach(() => vi.unstubAllGlobals());

describe("a receipt", () => {
  it.each(fixtures.receipts)("$name: $is_right, as Python says", async ({ document, is_right }) => {
    if (is_right) await expect(verifyReceipt(document)).resolves.toBeDefined();
    else await expect(verifyReceipt(document)).rejects.toThrow(ReceiptError);
  });

  it("says what was done", async () => {
    const receipt = await verifyReceipt(HONEST);
    expect(receipt).toMatchObject({ firstBlock: 0, endBlock: 4, positions: 10, tokenLayers: 40, cachedPositions: 0 });
    expect(receipt.peerId).toMatch(/^12D3KooW/);
  });

  it("is not called wrong where signatures cannot be checked", async () => {
    vi.stubGlobal("crypto", {});
    await expect(verifyReceipt(HONEST)).rejects.toMatchObject({ name: "FarLabsError", code: "cannot_verify" });
  });
});

describe("the receipts of a request", () => {
  async function told(changes: object = {}): Promise<RequestReceipts> {
    const receipt = await verifyReceipt(HONEST);
    const one = {
      node_id: receipt.peerId,
      wallet_address: receipt.wallet,
      layers: [0, 1, 2, 3],
      quantization: "none",
      token_layers: 40,
      receipt: HONEST,
    };
    return { receipts: [{ ...one, ...changes }] } as unknown as RequestReceipts;
  }

  it("prove who did how much of which blocks", async () => {
    expect(await verifyReceipts(await told())).toMatchObject({ tokenLayers: 40, blocks: [[0, 4]] });
  });

  it("may pay less than was signed for, and not more", async () => {
    expect((await verifyReceipts(await told({ token_layers: 39 }))).tokenLayers).toBe(39);
    await expect(verifyReceipts(await told({ token_layers: 41 }))).rejects.toThrow("more than it has signed for");
  });

  it.each([{ node_id: "12D3KooX" }, { wallet_address: "0x0" }, { layers: [0, 1] }, { layers: [] }, { quantization: "nf4" }])(
    "are wrong when the gateway says otherwise: %j",
    async (changes) => {
      await expect(verifyReceipts(await told(changes))).rejects.toThrow(ReceiptError);
    },
  );
});
