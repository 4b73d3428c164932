// What is deployed, with which arguments. Ignition keeps a journal, so a deployment that broke off is continued.
import { buildModule } from "@nomicfoundation/hardhat-ignition/modules";

export default buildModule("FarMesh", (m) => {
  const given = (name) => m.getParameter(name);
  const token = m.contract("FarToken", [given("holder"), given("supply")]);
  const escrow = m.contract("InferenceEscrow", [
    token,
    given("adminDelay"),
    given("admin"),
    given("settler"),
    given("pauser"),
    given("treasurer"),
    given("feeBps"),
    given("releaseCapPerDay"),
  ]);
  const staking = m.contract("FarStaking", [
    token,
    given("adminDelay"),
    {
      admin: given("admin"),
      slasher: given("slasher"),
      vetoer: given("vetoer"),
      pauser: given("pauser"),
      treasurer: given("treasurer"),
    },
    given("unbondingPeriod"),
    given("vetoWindow"),
    given("maxSlashBps"),
  ]);
  return { token, escrow, staking };
});
