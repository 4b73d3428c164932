import { Dashboard } from "./Dashboard";

export const metadata = {
  title: "Earnings",
  description: "What your nodes do and earn, where the money is, and how to take it.",
};

export default function Page() {
  return <Dashboard />;
}
