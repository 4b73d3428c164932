import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readNodeClaim, signNodeClaim, signVoucher, verifyWebhook } from "../src/index.js";
import { privateKeySigner } from "../src/viem.js";
import { fixtures } from "./fixtures.js";

describe("a voucher", () => {
  it.each(fixtures.vouchers)("of $units units is signed as Python signs it", async (one) => {
    const domain = { chainId: one.chain_id, escrow: one.escrow };
    const voucher = await signVoucher(privateKeySigner(one.key), domain, one.voucher.channelId, BigInt(one.units));
    expect(voucher).toEqual(one.voucher);
  });

  it("takes a wallet that signs typed data", async () => {
    const { signTypedData: _, ...signer } = privateKeySigner(fixtures.claim.key);
    const domain = { chainId: 1, escrow: "0x00" } as const;
    await expect(signVoucher(signer, domain, "0x00", 1)).rejects.toMatchObject({ code: "cannot_sign" });
  });
});

describe("the claim of a node", () => {
  const { key, fragment, claim } = fixtures.claim;

  it("is signed as Python signs it", async () => {
    expect(await signNodeClaim(privateKeySigner(key), readNodeClaim(`#${fragment}`))).toEqual(claim);
  });

  it("is read from the whole link as well", () => {
    expect(readNodeClaim(`https://far.test/claim#${fragment}`)).toEqual(readNodeClaim(fragment));
  });

  it("is for one wallet", async () => {
    const other = privateKeySigner(`0x${"11".repeat(32)}`);
    await expect(signNodeClaim(other, readNodeClaim(fragment))).rejects.toMatchObject({ code: "wrong_wallet" });
  });

  it.each([
    ["nothing", ""],
    ["half of it", fragment.slice(0, 60)],
    ["something twice", `${fragment}&n=x`],
    ["something more", `${fragment}&x=1`],
    ["a chain that is none", fragment.replace("c=31337", "c=0x1")],
    ["a time that is not exact", fragment.replace(/t=\d+/, "t=9007199254740993")],
    ["a wallet that is none", fragment.replace(/w=0x\w/, "w=0x")],
  ])("is none: %s", (_, text) => {
    expect(() => readNodeClaim(text)).toThrow(expect.objectContaining({ code: "invalid_claim" }));
  });
});

describe("a webhook", () => {
  const { secret, body, headers } = fixtures.webhook;
  const at = Number(headers["webhook-timestamp"]) * 1000;

  beforeEach(() => void vi.useFakeTimers({ now: at, toFake: ["Date"] }));
  afterEach(() => void vi.useRealTimers());

  it("that the gateway has signed is read, as text or bytes, by any kind of headers", async () => {
    const message = { id: "msg_1", type: "job.completed", data: { job_id: "job_1", text: "grün" } };
    expect(await verifyWebhook({ secret, body, headers })).toMatchObject(message);
    const bytes = new TextEncoder().encode(body);
    expect(await verifyWebhook({ secret, body: bytes, headers: new Headers(headers) })).toMatchObject(message);
    const upper = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toUpperCase(), value]));
    expect(await verifyWebhook({ secret, body, headers: upper })).toMatchObject(message);
  });

  it("may be signed with two secrets, while one is replaced", async () => {
    const both = { ...headers, "webhook-signature": `v1,AAAA v2,x ${headers["webhook-signature"]}` };
    await expect(verifyWebhook({ secret, body, headers: both })).resolves.toBeDefined();
  });

  it.each([
    ["another body", { body: `${body} ` }],
    ["another id", { headers: { ...headers, "webhook-id": "msg_2" } }],
    ["another time", { headers: { ...headers, "webhook-timestamp": String(at / 1000 + 1) } }],
    ["no time", { headers: { ...headers, "webhook-timestamp": "now" } }],
    ["no signature", { headers: { ...headers, "webhook-signature": "" } }],
    ["a signature of nothing", { headers: { ...headers, "webhook-signature": "v1, v1,?? x" } }],
    ["another secret", { secret: `whsec_${btoa("x".repeat(32))}` }],
    ["a secret that is none", { secret: "x" }],
    ["no headers", { headers: {} }],
  ])("is refused for %s", async (_, changes) => {
    await expect(verifyWebhook({ secret, body, headers, ...changes })).rejects.toMatchObject({ code: "webhook_invalid" });
  });

  it("is refused when it is old, or of times to come", async () => {
    for (const seconds of [301, -301]) {
      vi.setSystemTime(at + seconds * 1000);
      await expect(verifyWebhook({ secret, body, headers })).rejects.toThrow("not of now");
    }
    vi.setSystemTime(at + 299_000);
    await expect(verifyWebhook({ secret, body, headers })).resolves.toBeDefined();
    await expect(verifyWebhook({ secret, body, headers, tolerance: 10 })).rejects.toThrow("not of now");
  });
});
