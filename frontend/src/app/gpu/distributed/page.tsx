import { Provide } from "./Provide";

export const metadata = {
  title: "Provide",
  description: "Serve blocks of a model on your machine, and be paid for the work it can prove: what fits, the command, and what others earned.",
};

export default function Page() {
  return <Provide />;
}
