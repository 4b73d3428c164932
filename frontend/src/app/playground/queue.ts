import type { Place } from "farlabs";

/** What a request waits for that has no token yet. */
export function queueInWords(place: Place | undefined): string {
  if (place === undefined) return "Waiting for the first token";
  const { position, obstacle } = place;
  const what = position === 0 ? "Its turn has come: nodes with room for it are being found" : `In the queue: number ${position}`;
  return obstacle === undefined ? what : `${what}. All wait for this: ${obstacle}`;
}
