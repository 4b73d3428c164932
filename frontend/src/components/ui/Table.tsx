import type { ReactNode } from "react";

export interface Column<Row> {
  name: string;
  cell: (row: Row) => ReactNode;
  /** Numbers stand to the right, one under the other. */
  isNumber?: boolean;
}

interface TableProps<Row> {
  /** What the table is about; read out, and shown if `showCaption`. */
  caption: string;
  showCaption?: boolean;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  empty?: ReactNode;
}

/** Rows and columns; on a phone each row is a card that names its columns. The first column names the row. */
export function Table<Row>({ caption, showCaption = false, columns, rows, keyOf, empty }: TableProps<Row>) {
  if (rows.length === 0 && empty !== undefined) return empty;
  return (
    <table className="w-full border-collapse text-sm max-sm:block">
      <caption className={showCaption ? "mb-2 text-left text-soft" : "sr-only"}>{caption}</caption>
      <thead className="max-sm:sr-only">
        <tr>
          {columns.map(({ name, isNumber }) => (
            <th key={name} scope="col" className={`border-b border-line px-2 py-2 font-medium text-soft ${isNumber ? "text-right" : "text-left"}`}>
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody className="max-sm:block">
        {rows.map((row) => (
          <tr key={keyOf(row)} className="border-b border-line last:border-0 max-sm:block max-sm:py-3">
            {columns.map(({ name, cell, isNumber }, place) => {
              const look = `px-2 py-2 max-sm:flex max-sm:justify-between max-sm:gap-4 max-sm:py-1 ${isNumber ? "text-right tabular-nums" : "text-left"}`;
              const content = (
                <>
                  <span aria-hidden="true" className="text-soft sm:hidden">{name}</span>
                  <span>{cell(row)}</span>
                </>
              );
              return place === 0 ? (
                <th key={name} scope="row" className={`font-normal ${look}`}>{content}</th>
              ) : (
                <td key={name} className={look}>{content}</td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
