// Puts what was built where the gateway serves it from, in one step: a gateway never sees half of it.
import { cp, rename, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const built = fileURLToPath(new URL("../out", import.meta.url));
const served = fileURLToPath(new URL("../../far_mesh/marketplace/dashboard/site", import.meta.url));

await rm(`${served}.new`, { recursive: true, force: true });
await cp(built, `${served}.new`, { recursive: true });
await rm(served, { recursive: true, force: true });
await rename(`${served}.new`, served);
console.log("built: the dashboard, served by the gateway from now on");
