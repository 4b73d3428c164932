"use client";

import { useQuery } from "@tanstack/react-query";
import { models } from "farlabs";
import { Card } from "@/components/ui/Card";
import { publicTransport } from "@/lib/gateway";

export default function Home() {
  const { data } = useQuery({ queryKey: ["models"], queryFn: () => models(publicTransport()), refetchInterval: 5_000 });
  return (
    <div className="flex flex-col gap-6">
      <h1 className="text-3xl font-bold">Models run by many</h1>
      <Card title="Models">{data?.map((model) => <p key={model.id}>{model.id}</p>)}</Card>
    </div>
  );
}
