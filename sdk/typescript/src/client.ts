import { accountTier } from "./actions/accountTier.js";
import { accountTiers } from "./actions/accountTiers.js";
import { activeNodes } from "./actions/activeNodes.js";
import { addWorker } from "./actions/addWorker.js";
import { apiKeys } from "./actions/apiKeys.js";
import { balance } from "./actions/balance.js";
import { batch } from "./actions/batch.js";
import { cancelJob } from "./actions/cancelJob.js";
import { channel } from "./actions/channel.js";
import { channels } from "./actions/channels.js";
import { chat } from "./actions/chat.js";
import { claimNode } from "./actions/claimNode.js";
import { claims } from "./actions/claims.js";
import { clusterStatus } from "./actions/clusterStatus.js";
import { createApiKey } from "./actions/createApiKey.js";
import { deliveries } from "./actions/deliveries.js";
import { deposit } from "./actions/deposit.js";
import { deposits } from "./actions/deposits.js";
import { earningsHistory } from "./actions/earningsHistory.js";
import { embeddings } from "./actions/embeddings.js";
import { generate } from "./actions/generate.js";
import { health } from "./actions/health.js";
import { howToServe } from "./actions/howToServe.js";
import { jobResult } from "./actions/jobResult.js";
import { jobs } from "./actions/jobs.js";
import { listPrices } from "./actions/listPrices.js";
import { lookAtChannel } from "./actions/lookAtChannel.js";
import { models } from "./actions/models.js";
import { node } from "./actions/node.js";
import { nodeEarnings } from "./actions/nodeEarnings.js";
import { payByVoucher } from "./actions/payByVoucher.js";
import { payoutAddress } from "./actions/payoutAddress.js";
import { privatePool } from "./actions/privatePool.js";
import { providerNodes } from "./actions/providerNodes.js";
import { providerStats } from "./actions/providerStats.js";
import { quote } from "./actions/quote.js";
import { ready } from "./actions/ready.js";
import { rebalance } from "./actions/rebalance.js";
import { receipts } from "./actions/receipts.js";
import { removeWorker } from "./actions/removeWorker.js";
import { request } from "./actions/request.js";
import { revokeApiKey } from "./actions/revokeApiKey.js";
import { rewardHistory } from "./actions/rewardHistory.js";
import { rewards } from "./actions/rewards.js";
import { sendVoucher } from "./actions/sendVoucher.js";
import { setListPrice } from "./actions/setListPrice.js";
import { setPayoutAddress } from "./actions/setPayoutAddress.js";
import { setPrivatePool } from "./actions/setPrivatePool.js";
import { setWalletTier } from "./actions/setWalletTier.js";
import { settlement } from "./actions/settlement.js";
import type { Session } from "./actions/signIn.js";
import { signOut } from "./actions/signOut.js";
import { submitJob } from "./actions/submitJob.js";
import { tiers } from "./actions/tiers.js";
import { usage } from "./actions/usage.js";
import { usageCsv } from "./actions/usageCsv.js";
import { waitForJob } from "./actions/waitForJob.js";
import { walletTier } from "./actions/walletTier.js";
import { webhookSecret } from "./actions/webhookSecret.js";
import { workers } from "./actions/workers.js";
import { createTransport, type CallOptions, type Transport, type TransportOptions } from "./transport.js";

export type FarLabsClientOptions = TransportOptions;

const ACTIONS = {
  accountTier,
  accountTiers,
  activeNodes,
  addWorker,
  apiKeys,
  balance,
  batch,
  cancelJob,
  channel,
  channels,
  chat,
  claimNode,
  claims,
  clusterStatus,
  createApiKey,
  deliveries,
  deposit,
  deposits,
  earningsHistory,
  embeddings,
  generate,
  health,
  howToServe,
  jobResult,
  jobs,
  listPrices,
  lookAtChannel,
  models,
  node,
  nodeEarnings,
  payByVoucher,
  payoutAddress,
  privatePool,
  providerNodes,
  providerStats,
  quote,
  ready,
  rebalance,
  receipts,
  removeWorker,
  request,
  revokeApiKey,
  rewardHistory,
  rewards,
  sendVoucher,
  setListPrice,
  setPayoutAddress,
  setPrivatePool,
  setWalletTier,
  settlement,
  signOut,
  submitJob,
  tiers,
  usage,
  usageCsv,
  waitForJob,
  walletTier,
  webhookSecret,
  workers,
} as const;

type Bound<F> = F extends (transport: Transport, ...rest: infer Rest) => infer Result
  ? (...rest: Rest) => Result
  : never;

type Actions = { readonly [Name in keyof typeof ACTIONS]: Bound<(typeof ACTIONS)[Name]> };

export interface FarLabsClient extends Actions {}

/**
 * A client of one gateway. Every action of this package is one of its methods.
 *
 * ```ts
 * const client = new FarLabsClient({ apiKey: process.env.FAR_API_KEY });
 * for await (const text of client.generate({ model: "far-demo", prompt: "Once" })) process.stdout.write(text);
 * ```
 */
export class FarLabsClient {
  readonly transport: Transport;

  /** @throws FarLabsError `invalid_url`, `invalid_key`. */
  constructor(options: FarLabsClientOptions = {}) {
    this.transport = createTransport(options);
    for (const [name, action] of Object.entries(ACTIONS)) {
      const bound = (...rest: unknown[]) => (action as (...all: unknown[]) => unknown)(this.transport, ...rest);
      Object.defineProperty(this, name, { value: bound });
    }
  }

  /** The token in use, to be kept for the next time. */
  get session(): Session | undefined {
    return this.transport.session;
  }

  /**
   * Sign in now, so that the wallet is not asked in the middle of something.
   *
   * @throws AuthenticationError there is no wallet, or the gateway does not take its signature.
   */
  async signIn(options?: CallOptions): Promise<Session> {
    return this.transport.signIn(options);
  }
}
