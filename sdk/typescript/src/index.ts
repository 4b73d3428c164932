/** Client of Far Mesh. {@link FarLabsClient} has everything; single actions are smaller where code is bundled. */

export * from "./amounts.js";
export { nodeClaimTypedData, readNodeClaim, signNodeClaim, type UnsignedNodeClaim } from "./claims.js";
export { FarLabsClient, type FarLabsClientOptions } from "./client.js";
export * from "./errors.js";
export { Generation, type GenerationResult, type OnWait, type PayVoucher, type Place } from "./generation.js";
export { type Receipt, type Verified, verifyReceipt, verifyReceipts } from "./receipts.js";
export type { Signer, TypedData } from "./signer.js";
export {
  type Answer,
  type Call,
  type CallOptions,
  createTransport,
  DEFAULT_URL,
  type EventStream,
  type Transport,
  type TransportOptions,
} from "./transport.js";
export type { ServerSentEvent, StreamComment, StreamItem } from "./sse.js";
export type * from "./types.js";
export { type VerifyWebhookOptions, verifyWebhook, type WebhookData, type WebhookMessage } from "./webhooks.js";
export * from "./actions/accountTier.js";
export * from "./actions/accountTiers.js";
export * from "./actions/activeNodes.js";
export * from "./actions/addWorker.js";
export * from "./actions/apiKeys.js";
export * from "./actions/balance.js";
export * from "./actions/batch.js";
export * from "./actions/cancelJob.js";
export * from "./actions/channel.js";
export * from "./actions/channels.js";
export * from "./actions/chat.js";
export * from "./actions/claimNode.js";
export * from "./actions/claims.js";
export * from "./actions/clusterStatus.js";
export * from "./actions/createApiKey.js";
export * from "./actions/deliveries.js";
export * from "./actions/deposit.js";
export * from "./actions/deposits.js";
export * from "./actions/earningsHistory.js";
export * from "./actions/embeddings.js";
export * from "./actions/generate.js";
export * from "./actions/health.js";
export * from "./actions/howToServe.js";
export * from "./actions/jobResult.js";
export * from "./actions/jobs.js";
export * from "./actions/listPrices.js";
export * from "./actions/lookAtChannel.js";
export * from "./actions/models.js";
export * from "./actions/node.js";
export * from "./actions/nodeEarnings.js";
export * from "./actions/payByVoucher.js";
export * from "./actions/payoutAddress.js";
export * from "./actions/privatePool.js";
export * from "./actions/providerNodes.js";
export * from "./actions/providerStats.js";
export * from "./actions/quote.js";
export * from "./actions/ready.js";
export * from "./actions/rebalance.js";
export * from "./actions/receipts.js";
export * from "./actions/removeWorker.js";
export * from "./actions/request.js";
export * from "./actions/revokeApiKey.js";
export * from "./actions/rewardHistory.js";
export * from "./actions/rewards.js";
export * from "./actions/sendVoucher.js";
export * from "./actions/setListPrice.js";
export * from "./actions/setPayoutAddress.js";
export * from "./actions/setPrivatePool.js";
export * from "./actions/setWalletTier.js";
export * from "./actions/settlement.js";
export * from "./actions/signIn.js";
export * from "./actions/signOut.js";
export * from "./actions/signVoucher.js";
export * from "./actions/submitJob.js";
export * from "./actions/tiers.js";
export { usage, type UsageOptions } from "./actions/usage.js";
export * from "./actions/usageCsv.js";
export * from "./actions/waitForJob.js";
export * from "./actions/walletTier.js";
export * from "./actions/webhookSecret.js";
export * from "./actions/workers.js";
