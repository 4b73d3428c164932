import type { NextConfig } from "next";
import { PHASE_DEVELOPMENT_SERVER } from "next/constants";

/** Where `npm run dev` finds a gateway. What is built talks to the gateway that serves it. */
const GATEWAY = process.env["FAR_GATEWAY"] ?? "http://localhost:8000";

export default function config(phase: string): NextConfig {
  const common: NextConfig = { trailingSlash: false, images: { unoptimized: true }, devIndicators: false };
  // types are checked by `make check`, once, and not by everybody who builds the pages to look at them
  if (phase !== PHASE_DEVELOPMENT_SERVER) return { ...common, output: "export", typescript: { ignoreBuildErrors: true } };
  const paths = ["/api/:path*", "/v1/:path*", "/nodes/:path*", "/health", "/ready", "/submit", "/results/:path*", "/jobs/:path*"];
  return { ...common, rewrites: async () => paths.map((source) => ({ source, destination: `${GATEWAY}${source}` })) };
}
