import type { ClusterStatus } from "farlabs";
import { Badge } from "@/components/ui/Badge";
import { Card } from "@/components/ui/Card";
import { Empty } from "@/components/ui/Empty";
import { type Column, Table } from "@/components/ui/Table";
import { count, when } from "@/lib/format";
import { ago, dutyOf } from "./operating";

interface Line {
  name: string;
  isAlive: boolean;
  isThis: boolean;
  until: string | undefined;
  active: number;
  pending: number;
}

/** The gateways of this database, and what one of them at a time does. */
export function Gateways({ status }: { status: ClusterStatus }) {
  const { at, leases } = status;
  const columns: readonly Column<Line>[] = [
    { name: "Gateway", cell: ({ name, isThis }) => <span className="break-all">{name}{isThis && " (this one)"}</span> },
    {
      name: "State",
      cell: ({ isAlive, until }) => (isAlive ? <Badge kind="good">alive</Badge> : <Badge kind="bad">{until === undefined ? "gone" : `gone ${ago(until, at)}`}</Badge>),
    },
    { name: "Answering", isNumber: true, cell: ({ active }) => count(active) },
    { name: "Setting money aside", isNumber: true, cell: ({ pending }) => count(pending) },
  ];
  return (
    <Card title="Gateways">
      <Table
        caption="Gateways that share this database, with the requests in their hands"
        columns={columns}
        rows={linesOf(status)}
        keyOf={({ name }) => name}
        empty={<Empty title="No gateway is known">The database does not answer.</Empty>}
      />
      {leases.length > 0 && (
        <dl className="mt-4 flex flex-col gap-1 text-sm">
          {leases.map(({ name, gateway, held, expires_at: until }) => (
            <div key={name} className="flex flex-wrap gap-x-2">
              <dt className="text-soft">The one that {dutyOf(name)}:</dt>
              <dd title={`until ${when(until)}`}>{held ? gateway : `nobody; ${gateway} did, until ${ago(until, at)}`}</dd>
            </div>
          ))}
        </dl>
      )}
    </Card>
  );
}

function linesOf({ gateways, sessions }: ClusterStatus): Line[] {
  const lines = gateways.map(({ name, alive, alive_until: until, this: isThis }) => {
    const open = sessions.find(({ gateway }) => gateway === name);
    return { name, isAlive: alive, isThis, until, active: open?.active ?? 0, pending: open?.pending ?? 0 };
  });
  const known = new Set(lines.map(({ name }) => name));
  const lost = sessions.filter(({ gateway }) => !known.has(gateway));
  return [...lines, ...lost.map(({ gateway: name, active, pending }) => ({ name, isAlive: false, isThis: false, until: undefined, active, pending }))];
}
