import type { ModelToServe } from "farlabs";
import { expect, test } from "vitest";
import { CACHE_BYTES, estimate, fits, GIB, gibibytes, longest, mostNeeded, quoted, replicasOf, RESERVE_BYTES, room, startCommand, usual } from "@/app/gpu/distributed/serving";

const WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const week = { requests: 100, tokens: 9_000, node_units: 8_000, since: null };
const model: ModelToServe = {
  model_id: "owner/name",
  source: "owner/name",
  weights: [
    { device: "cuda", quantization: "none", block_bytes: Array(8).fill(4 * GIB) },
    { device: "cuda", quantization: "int8", block_bytes: Array(8).fill(2 * GIB) },
    { device: "cuda", quantization: "nf4", block_bytes: Array(8).fill(GIB) },
    { device: "cpu", quantization: "int8", block_bytes: Array(8).fill(2 * GIB) },
  ],
  last_week: week,
};
const start = {
  model, wallet: WALLET, gateway: "https://far.example", prefix: "far", isPrivate: false, device: "cuda", quantization: undefined, isBehindRouter: false,
} as const;

test("the reserve and the cache are no room for weights", () => {
  expect(room(12)).toBe(12 * GIB - RESERVE_BYTES - CACHE_BYTES);
  expect(room(1)).toBe(0);
});

test("the longest ranges are found whatever the sizes of the blocks", () => {
  expect(longest([1, 1, 1, 1], 2)).toEqual([[0, 2], [1, 3], [2, 4]]);
  expect(longest([5, 1, 1, 5, 1], 2)).toEqual([[1, 3]]);
  expect(longest([1, 2, 3], 100)).toEqual([[0, 3]]);
  expect(longest([5, 5], 4)).toEqual([]);
  expect(longest([], 4)).toEqual([]);
});

test("what fits is told for each kind of weights of a device alone", () => {
  const found = fits(model, "cuda", 12);
  expect(found.map(({ quantization, blocks }) => [quantization, blocks])).toEqual([["none", 2], ["int8", 4], ["nf4", 8]]);
  expect(found.map(({ wholeBytes }) => wholeBytes / GIB)).toEqual([32, 16, 8]);
  expect(fits(model, "cpu", 64).map(({ blocks }) => blocks)).toEqual([8]);
  expect(fits(model, "cuda", 3)[0]?.blocks).toBe(0);
});

test("a node takes int8 unless a GPU holds more in nf4", () => {
  expect(usual(fits(model, "cuda", 24), "cuda")).toBe("int8");
  expect(usual(fits(model, "cuda", 12), "cuda")).toBe("nf4");
  expect(usual(fits(model, "cpu", 4), "cpu")).toBe("int8");
});

test("a node goes where the fewest serve", () => {
  const replicas = replicasOf({ coverage: [{ first_block: 0, end_block: 2, replicas: 3 }, { first_block: 2, end_block: 4, replicas: 0 }], block_count: 4 });
  expect(replicas).toEqual([3, 3, 0, 0]);
  expect(mostNeeded([[0, 2], [1, 3], [2, 4]], replicas)).toEqual([2, 4]);
  expect(mostNeeded([], replicas)).toBeUndefined();
});

test("an estimate lies between sharing evenly and having it all", () => {
  expect(estimate(week, [0, 8], Array(8).fill(1))).toEqual({ low: 4_000, high: 8_000 });
  expect(estimate(week, [0, 4], Array(8).fill(3))).toEqual({ low: 1_000, high: 4_000 });
  expect(estimate(week, [0, 4], Array(8).fill(0))).toEqual({ low: 4_000, high: 4_000 });
});

test("nobody is promised anything where nothing is known", () => {
  expect(estimate({ ...week, requests: 0 }, [0, 8], [])).toHaveProperty("reason", expect.stringContaining("Nobody has asked"));
  expect(estimate({ ...week, requests: 19 }, [0, 8], [])).toHaveProperty("reason", expect.stringContaining("19 requests"));
  expect(estimate(week, undefined, [])).toHaveProperty("reason", expect.stringContaining("fits"));
});

test("the command has what was chosen and nothing else", () => {
  expect(startCommand(start)).toBe(
    `far-node start \\\n  --model owner/name \\\n  --wallet ${WALLET} \\\n  --discovery https://far.example`,
  );
  const more = startCommand({ ...start, prefix: "mine", device: "cpu", quantization: "int8", isBehindRouter: true });
  expect(more.split(" \\\n  ").slice(4)).toEqual(["--prefix mine", "--quantization int8", "--cpu-only", "--relay"]);
});

test("a model whose files are with the operator, and one that is sold under another name, are told so", () => {
  expect(startCommand({ ...start, model: { ...model, source: null } })).toContain("--model DIRECTORY \\\n  --model-id owner/name");
  expect(startCommand({ ...start, model: { ...model, source: "far-demo" } })).toContain("--model far-demo \\\n  --model-id owner/name");
});

test("a private swarm is joined by its invitation, and not by a discovery service", () => {
  const command = startCommand({ ...start, isPrivate: true, prefix: "ours" });
  expect(command).toContain("--swarm swarm.json \\\n  --invite invitation.txt");
  expect(command).not.toMatch(/discovery|prefix/);
});

test("nothing that a gateway says is run by a shell", () => {
  expect(quoted("owner/name")).toBe("owner/name");
  expect(quoted("$(reboot)")).toBe("'$(reboot)'");
  expect(quoted("it's; reboot")).toBe(`'it'\\''s; reboot'`);
  expect(quoted("")).toBe("''");
});

test("bytes are told with their unit", () => {
  expect([3 * 1024 ** 2, GIB / 2, 2 * GIB, 32 * GIB].map(gibibytes)).toEqual(["3.00 MiB", "0.50 GiB", "2.00 GiB", "32.0 GiB"]);
});
