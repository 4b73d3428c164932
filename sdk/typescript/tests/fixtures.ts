/** What Python has signed: see tests/support/sdk_fixtures.py. */

import { readFileSync } from "node:fs";
import type { NodeClaim, Voucher } from "../src/index.js";

interface Fixtures {
  receipts: { name: string; document: string; is_right: boolean }[];
  vouchers: { key: `0x${string}`; chain_id: number; escrow: `0x${string}`; units: string; voucher: Voucher }[];
  claim: { key: `0x${string}`; fragment: string; claim: NodeClaim };
  webhook: { secret: string; body: string; headers: Record<string, string> };
}

export const fixtures = JSON.parse(
  readFileSync(new URL("../../fixtures.json", import.meta.url), "utf8"),
) as Fixtures;
