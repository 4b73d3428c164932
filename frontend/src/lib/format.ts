import { formatFar } from "farlabs";

/** `0x1234…abcd`, `12D3Ko…xYz1`: enough to recognise it; the whole of it belongs into a title. */
export function short(id: string, start = 6, end = 4): string {
  return id.length <= start + end + 1 ? id : `${id.slice(0, start)}…${id.slice(-end)}`;
}

/** An amount of units of 1e-9 FAR for eyes: exact below, rounded to six places above. */
export function far(units: number | bigint | string | null | undefined): string {
  if (units === null || units === undefined) return "–";
  const exact = formatFar(units);
  const [whole = "0", fraction = ""] = exact.split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, " ");
  const kept = (whole === "0" ? fraction : fraction.slice(0, 6)).replace(/0+$/, "");
  return `${grouped}${kept === "" ? "" : `.${kept}`} FAR`;
}

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : value.toLocaleString("en");
}

export function percent(share: number | null | undefined): string {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`;
}

export function milliseconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

export function when(iso: string | null | undefined): string {
  return iso ? new Date(iso).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : "–";
}
