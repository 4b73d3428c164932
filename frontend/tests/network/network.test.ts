import type { ActiveNode } from "farlabs";
import { expect, test } from "vitest";
import { blocks, nodesOf, placesOf, sentenceOf, strip } from "@/components/network/network";
import { HEIGHT, project, WIDTH } from "@/components/network/projection";

function node(node_id: string, coordinates: [number, number] | null, part: string | null): ActiveNode {
  return { node_id, coordinates, part } as ActiveNode;
}

function cover(...stretches: [first: number, end: number, replicas: number][]) {
  return stretches.map(([first_block, end_block, replicas]) => ({ first_block, end_block, replicas }));
}

test("a node that serves two models is one node", () => {
  const lists = [[node("ann", [52, 13], "eu"), node("bob", null, null)], [node("ann", [52, 13], "eu")]];
  expect(nodesOf(lists).map(({ id }) => id)).toEqual(["ann", "bob"]);
});

test("nodes stand where they are, in the middle of what is known, or nowhere, and all are counted", () => {
  const known = [node("ann", [52, 13], "eu"), node("bob", [52, 13], "eu"), node("cid", null, "oc"), node("dan", null, null)];
  const { spots, parts, unknown } = placesOf(nodesOf([[...known, node("eve", null, "atlantis")]]));
  expect(spots.map(({ latitude, count, isCoarse }) => [latitude, count, isCoarse])).toEqual([[52, 2, false], [-28, 1, true]]);
  expect(parts).toEqual([{ name: "Europe", count: 2 }, { name: "Australia and Oceania", count: 1 }]);
  expect(unknown).toBe(2);
});

test("blocks are named as people count them", () => {
  expect([blocks(3, 4), blocks(3, 6)]).toEqual(["block 3", "blocks 3–5"]);
});

test.each([
  [cover([0, 8, 0]), "Nobody serves it now."],
  [cover([0, 3, 1], [3, 6, 0], [6, 7, 2], [7, 8, 0]), "Nobody serves blocks 3–5, block 7 now."],
  [cover([0, 8, 1]), "All 8 blocks are served, each by one node."],
  [cover([0, 4, 3], [4, 8, 2]), "All 8 blocks are served, each by 2 nodes or more."],
  [cover([0, 7, 3], [7, 8, 1]), "All 8 blocks are served; 1 of them hangs on one node alone."],
])("how a model is served, in a sentence", (coverage, sentence) => {
  expect(sentenceOf(coverage, 8)).toBe(sentence);
});

test("the strip is told to who cannot see it", () => {
  expect(strip(cover([0, 3, 2], [3, 4, 0]))).toBe("blocks 0–2: 2 nodes; block 3: no node");
});

test("the map is the one that its outline was drawn with", () => {
  const berlin = project(52.5, 13.4);
  expect(berlin[0]).toBeCloseTo(532, 0);
  expect(berlin[1]).toBeCloseTo(84, 0);
  expect(project(-90, 0)[1]).toBeLessThanOrEqual(HEIGHT);
  expect(project(0, 180)).toEqual([WIDTH, expect.closeTo(252.7, 1)]);
});
