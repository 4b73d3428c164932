/** What the compiler lets through, and what not: `tsc` reads this, and the tests are there to be read by it. */

import { privateKeyToAccount } from "viem/accounts";
import { describe, expectTypeOf, it } from "vitest";
import {
  type ActiveNodes,
  type Balance,
  FarLabsClient,
  FarLabsError,
  type Generation,
  type GenerationResult,
  type JobState,
  PaymentRequiredError,
  type Signer,
  type UsageCsvOptions,
} from "../src/index.js";

const client = new FarLabsClient({ url: "http://localhost" });

describe("types", () => {
  it("of methods are those of the functions, without the transport", () => {
    expectTypeOf(client.balance).returns.resolves.toEqualTypeOf<Balance>();
    expectTypeOf(client.activeNodes).parameter(0).toEqualTypeOf<string>();
    expectTypeOf(client.activeNodes).returns.resolves.toEqualTypeOf<ActiveNodes>();
    expectTypeOf(client.generate).returns.toEqualTypeOf<Generation>();
    expectTypeOf(client.waitForJob).returns.resolves.toEqualTypeOf<JobState>();
    expectTypeOf<GenerationResult["text"]>().toEqualTypeOf<string>();
  });

  it("know the options, and refuse what is none", () => {
    const calls = () => {
      client.generate({ model: "m", prompt: "x", maxTokens: 1, top_k: 5, signal: undefined });
      client.chat({ model: "m", messages: [{ role: "user", content: "x" }] as const });
      // @ts-expect-error no model
      client.generate({ prompt: "x" });
      // @ts-expect-error misspelt
      client.generate({ model: "m", prompt: "x", maxToken: 1 });
      // @ts-expect-error the name of this package is maxTokens
      client.generate({ model: "m", prompt: "x", max_tokens: 1 });
      // @ts-expect-error no messages
      client.chat({ model: "m" });
      // @ts-expect-error there is no such role
      client.chat({ model: "m", messages: [{ role: "robot", content: "x" }] });
      // @ts-expect-error a table has no pages
      client.usageCsv({ limit: 1 } satisfies UsageCsvOptions);
      // @ts-expect-error methods are not replaced
      client.balance = client.models;
    };
    expectTypeOf(calls).toBeFunction();
  });

  it("take an account of viem for a wallet", () => {
    expectTypeOf(privateKeyToAccount).returns.toExtend<Signer>();
  });

  it("of errors say what is there", () => {
    expectTypeOf<FarLabsError["retryAfter"]>().toEqualTypeOf<number | undefined>();
    expectTypeOf<PaymentRequiredError>().toExtend<FarLabsError>();
    expectTypeOf<PaymentRequiredError["name"]>().toEqualTypeOf<"PaymentRequiredError">();
  });
});
