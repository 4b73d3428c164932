import { BaseError, ContractFunctionRevertedError, InsufficientFundsError, UserRejectedRequestError } from "viem";
import { explain } from "./explain";

/** What contracts refuse that people can do something about. */
const REASONS: Readonly<Record<string, string>> = {
  ChannelCloseDelayOutOfRange: "The contract wants more time for the last voucher, or less.",
  ChannelDeadlineNotPassed: "It is too early: the last voucher may still be redeemed.",
  ChannelNotClosing: "The channel is closed already, or nobody has started to close it.",
  ChannelNotOpen: "The channel is closed, or is being closed.",
  EnforcedPause: "The contract is paused by those who run it. Nothing is lost: try again later.",
  EscrowInsufficientDeposit: "There is less in the deposit than that, or requests under way hold some of it.",
  EscrowInvalidAddress: "The contract takes no such address.",
  EscrowNoCredit: "There is nothing to withdraw: it was taken already, or is not there yet.",
  EscrowZeroAmount: "The amount is zero.",
  PayoutNotClaimable: "It can be claimed later: the waiting time has not passed.",
  PayoutNothingToClaim: "It was claimed already.",
  PayoutProofInvalid: "The proof of the marketplace is wrong. Nothing was sent; tell others.",
  PayoutRootUnknown: "The chain does not know this payout: it was taken back, or is not there yet.",
  ERC20InsufficientBalance: "There is not enough FAR in your wallet.",
  ERC20InsufficientAllowance: "The contract may not take so much FAR from your wallet: approve it first.",
  ERC2612ExpiredSignature: "The permission was signed too long ago: try again.",
};

/** Why a transaction was not made, or did nothing, in a sentence. `symbol`: the coin in which gas is paid. */
export function refusal(error: unknown, symbol: string): string {
  if (!(error instanceof BaseError)) return explain(error);
  if (error.walk((one) => one instanceof UserRejectedRequestError) !== null) {
    return "You said no in your wallet. Nothing has happened.";
  }
  if (error.walk((one) => one instanceof InsufficientFundsError) !== null) {
    return `Your wallet has not enough ${symbol} for the gas.`;
  }
  const reverted = error.walk((one) => one instanceof ContractFunctionRevertedError);
  if (reverted instanceof ContractFunctionRevertedError) {
    const name = reverted.data?.errorName ?? reverted.reason;
    if (name !== undefined) return REASONS[name] ?? `The contract refuses: ${name}.`;
  }
  return explain(error);
}
