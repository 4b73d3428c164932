import { readFileSync } from "node:fs";
import { type Receipt, type RequestReceipts, verifyReceipt } from "farlabs";
import { beforeAll, expect, test } from "vitest";
import { checksOf, receiptsFile } from "@/app/playground/proof";

/** Signed by Python: see tests/support/sdk_fixtures.py. */
const { receipts } = JSON.parse(readFileSync(new URL("../../../../sdk/fixtures.json", import.meta.url), "utf8")) as {
  receipts: { document: string; is_right: boolean }[];
};
const HONEST = receipts.find(({ is_right: isRight }) => isRight)?.document ?? "";
const FORGED = receipts.find(({ is_right: isRight }) => !isRight)?.document ?? "";
let signed: Receipt;

beforeAll(async () => {
  signed = await verifyReceipt(HONEST);
});

function told(changes: object = {}): RequestReceipts {
  const one = {
    node_id: signed.peerId,
    wallet_address: signed.wallet,
    layers: Array.from({ length: signed.endBlock - signed.firstBlock }, (_, place) => signed.firstBlock + place),
    quantization: signed.quantization,
    token_layers: signed.tokenLayers,
    paid_units: 1,
    receipt: HONEST,
    ...changes,
  };
  return { request_id: "req_1", model_id: "tiny", receipts: [one] };
}

const expected = () => ({ modelDigest: signed.modelDigest, blockCount: signed.endBlock });

test("an honest receipt passes every check", async () => {
  const checks = await checksOf(told(), expected());
  expect(checks.map(({ isGood }) => isGood)).toEqual([true, true, true, true]);
});

test("a forged one fails, and what else is said counts for nothing then", async () => {
  const checks = await checksOf(told({ receipt: FORGED }), expected());
  expect(checks).toHaveLength(1);
  expect(checks[0]).toMatchObject({ isGood: false, says: expect.stringMatching(/^Not valid: /) });
});

test("a gateway that pays for more than was signed is found out", async () => {
  const checks = await checksOf(told({ token_layers: signed.tokenLayers + 1 }), expected());
  expect(checks.map(({ isGood }) => isGood)).toEqual([true, false]);
});

test("another model, or blocks that nobody ran, are found out", async () => {
  const checks = await checksOf(told(), { modelDigest: "ff", blockCount: signed.endBlock + 1 });
  expect(checks.map(({ isGood }) => isGood)).toEqual([true, true, false, false]);
});

test("without receipts nothing is proven", async () => {
  expect(await checksOf({ ...told(), receipts: [] }, expected())).toMatchObject([{ isGood: false }]);
});

test("a model that is not on sale any more is not compared", async () => {
  expect(await checksOf(told(), undefined)).toHaveLength(2);
});

test("the file has what the gateway told, and a name that is one", () => {
  const { name, text } = receiptsFile({ ...told(), request_id: "../req 1" });
  expect(name).toBe("receipts-___req_1.json");
  expect(JSON.parse(text)).toEqual({ ...told(), request_id: "../req 1" });
});
