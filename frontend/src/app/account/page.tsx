import { Account } from "./Account";

export const metadata = {
  title: "Account",
  description: "Your balance, deposits, usage, API keys, tier and sessions.",
};

export default function Page() {
  return <Account />;
}
