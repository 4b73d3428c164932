import type { Metadata } from "next";
import { Playground } from "./Playground";

export const metadata: Metadata = {
  title: "Playground",
  description: "Ask a model that runs on pooled GPUs, and see who ran it, what it cost and what proves it.",
};

export default function Page() {
  return <Playground />;
}
