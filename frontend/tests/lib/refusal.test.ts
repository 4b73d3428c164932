import { BaseError, ContractFunctionRevertedError, encodeErrorResult, InsufficientFundsError, UserRejectedRequestError } from "viem";
import { expect, test } from "vitest";
import { escrowAbi } from "@/lib/abi/escrowAbi";
import { refusal } from "@/lib/refusal";

function reverted(errorName: "EscrowNoCredit" | "EscrowIntentExpired", args: readonly unknown[]): BaseError {
  const data = encodeErrorResult({ abi: escrowAbi, errorName, args } as never);
  return new BaseError("call", { cause: new ContractFunctionRevertedError({ abi: escrowAbi, data, functionName: "withdraw" }) });
}

test("a contract's refusal says what to do", () => {
  const wallet = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
  expect(refusal(reverted("EscrowNoCredit", [wallet]), "BNB")).toContain("nothing to withdraw");
});

test("one without words of ours keeps its name", () => {
  expect(refusal(reverted("EscrowIntentExpired", [1n]), "BNB")).toBe("The contract refuses: EscrowIntentExpired.");
});

test("who says no in the wallet is not told that something broke", () => {
  const error = new BaseError("call", { cause: new UserRejectedRequestError(new Error("no")) });
  expect(refusal(error, "BNB")).toBe("You said no in your wallet. Nothing has happened.");
});

test("without coins for gas the coin is named", () => {
  expect(refusal(new BaseError("call", { cause: new InsufficientFundsError() }), "tBNB")).toContain("enough tBNB");
});
