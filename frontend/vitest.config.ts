import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  // functions that keep nothing: files may share what they import, which is most of the time they take
  test: { include: ["tests/**/*.test.{ts,tsx}"], isolate: false, maxWorkers: 2, testTimeout: 120_000 },
});
