import type { Transport } from "../transport.js";
import { type UsageOptions, usageQuery } from "./usage.js";

export type UsageCsvOptions = Omit<UsageOptions, "limit" | "cursor">;

/** The same as `usage`, all of it at once, as a table for a spreadsheet (CSV). */
export async function usageCsv(transport: Transport, options: UsageCsvOptions = {}): Promise<string> {
  const { query, call } = usageQuery(options);
  const path = "/api/account/usage";
  return (await transport.call<string>({ ...call, path, query: { ...query, format: "csv" }, as: "text" })).body;
}
