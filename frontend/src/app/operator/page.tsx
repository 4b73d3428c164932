import { Operator } from "./Operator";

export const metadata = {
  title: "Operator",
  description: "For operators: queues, nodes, gateways, settlement, prices, and who is in which tier.",
};

export default function Page() {
  return <Operator />;
}
