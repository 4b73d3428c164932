import type { Metadata } from "next";
import { Home } from "./Home";

export const metadata: Metadata = { title: { absolute: "Far Mesh: language models on many people’s GPUs" } };

export default function Page() {
  return <Home />;
}
