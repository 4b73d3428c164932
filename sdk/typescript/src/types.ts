/** The shapes of the gateway's interface, from its document. */

import type { components } from "./generated/openapi.js";

type Schemas = components["schemas"];

export type Balance = Schemas["BalanceAnswer"];
export type ApiKey = Schemas["KeyEntry"];
export type NewApiKey = Schemas["KeyCreated"];
export type ApiKeyRequest = Schemas["KeyRequest"];
export type ChainEvent = Schemas["ChainEventAnswer"];
export type Deposits = Schemas["DepositList"];
export type DepositAnswer = Schemas["DepositAnswer"] | Schemas["PendingAnswer"];
export type Usage = Schemas["UsageAnswer"];
export type Model = Schemas["ModelEntry"];
export type Quote = Schemas["QuoteAnswer"];
export type QuoteRequest = Schemas["QuoteRequest"];
export type GenerateRequest = Schemas["GenerateRequest"];
export type GenerateAnswer = Schemas["GenerateAnswer"];
export type TokenEvent = Schemas["TokenEvent"];
export type DoneEvent = Schemas["DoneEvent"];
export type VoucherEvent = Schemas["VoucherEvent"];
export type NodeUsed = Schemas["NodeUsed"];
export type RequestState = Schemas["RequestState"];
export type RequestReceipts = Schemas["RequestReceipts"];
export type NodeReceipt = Schemas["NodeReceipt"];
export type ActiveNode = Schemas["ActiveNode"];
export type ActiveNodes = Schemas["ActiveNodes"];
export type Node = Schemas["NodeAnswer"];
export type NodeClaim = Schemas["ClaimRequest"];
export type ClaimedNode = Schemas["ClaimAnswer"];
export type ProviderStats = Schemas["ProviderStats"];
export type Rewards = Schemas["RewardsAnswer"];
export type Earning = Schemas["Earning"];
export type RewardHistory = Schemas["HistoryAnswer"];
export type PayoutClaims = Schemas["ClaimsAnswer"];
export type ClusterStatus = Schemas["ClusterStatus"];
export type RebalanceAdvice = Schemas["RebalanceAnswer"];
export type Tiers = Schemas["TierList"];
export type AccountTier = Schemas["AccountTier"];
export type Channel = Schemas["ChannelState"];
export type Job = Schemas["JobSummary"];
export type JobRequest = Schemas["JobRequest"];
export type JobState = Schemas["JobState"];
export type Jobs = Schemas["JobList"];
export type Health = Schemas["Alive"];
export type Readiness = Schemas["Readiness"];
