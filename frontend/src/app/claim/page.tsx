import { Claim } from "./Claim";

export const metadata = {
  title: "Claim a node",
  description: "Sign with your wallet that a node earns for it.",
};

export default function Page() {
  return <Claim />;
}
