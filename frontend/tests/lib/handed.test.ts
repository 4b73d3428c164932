import { expect, test } from "vitest";
import { handedSession, isHandedAt } from "@/lib/handed";

const WALLET = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
const tokenOf = (claims: unknown) => ["e30", Buffer.from(JSON.stringify(claims)).toString("base64url"), "s"].join(".");
const token = tokenOf({ sub: WALLET, exp: 1_800_000_000, note: "ÿþ?>" });

test("a session is taken from the fragment of an address on this machine", () => {
  const session = { token, walletAddress: WALLET, expiresAt: "2027-01-15T08:00:00.000Z" };
  expect(handedSession({ hash: `#session=${token}`, hostname: "127.0.0.1" })).toEqual(session);
  expect(handedSession({ hash: `#session=${token}`, hostname: "localhost" })).toEqual(session);
});

test.each(["farlabs.ai", "127.0.0.1.farlabs.ai", "localhost.farlabs.ai", "10.0.0.1"])(
  "no link makes somebody use another's account at %s",
  (hostname) => expect(handedSession({ hash: `#session=${token}`, hostname })).toBeUndefined(),
);

test.each([
  "",
  "#",
  "#session=",
  "#session=no-token",
  "#session=a.%%%.c",
  `#session=${tokenOf(null)}`,
  `#session=${tokenOf({ sub: WALLET })}`,
  `#session=${tokenOf({ exp: 1 })}`,
  `#session=${tokenOf({ sub: WALLET, exp: 1e300 })}`,
  `#claim=${token}`,
])("what is no session is none: %s", (hash) => {
  expect(handedSession({ hash, hostname: "127.0.0.1" })).toBeUndefined();
});

test("whatever is handed does not stay in the address, taken or not; what else stands there does", () => {
  expect(["#session=", "#session=no-token", `#session=${token}`].map(isHandedAt)).toEqual([true, true, true]);
  expect(["", "#", "#network", "#claim=1"].map(isHandedAt)).toEqual([false, false, false, false]);
});
