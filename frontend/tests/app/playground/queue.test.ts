import { expect, test } from "vitest";
import { queueInWords } from "@/app/playground/queue";

test("a request says where it stands and what all are waiting for", () => {
  expect(queueInWords(undefined)).toBe("Waiting for the first token");
  expect(queueInWords({ position: 2, obstacle: undefined })).toBe("In the queue: number 2");
  expect(queueInWords({ position: 0, obstacle: undefined })).toBe("Its turn has come: nodes with room for it are being found");
  expect(queueInWords({ position: 1, obstacle: "no node serves blocks 4:8" })).toBe(
    "In the queue: number 1. All wait for this: no node serves blocks 4:8",
  );
});
