// Promises about roles and the pause that every contract here makes, written once. `context.subject` is the contract.
import { expect } from "chai";
import { ethers } from "./support.js";

/** `call(context, signer)` makes the transaction; `holder` names the signer with the role. */
export function shouldBeOnlyFor(role, holder, call, getContext) {
  it(`is only for the ${holder}`, async function () {
    const context = getContext();
    const id = role === "DEFAULT_ADMIN_ROLE" ? ethers.ZeroHash : ethers.id(role);
    await expect(call(context, context.stranger))
      .to.be.revertedWithCustomError(context.subject, "AccessControlUnauthorizedAccount")
      .withArgs(context.stranger, id);
    await expect(call(context, context[holder])).not.to.revert(ethers);
  });
}

export function shouldStopWhilePaused(call, getContext) {
  it("stops while paused, and goes on after", async function () {
    const context = getContext();
    await context.subject.connect(context.pauser).pause();
    await expect(call(context)).to.be.revertedWithCustomError(context.subject, "EnforcedPause");
    await context.subject.connect(context.pauser).unpause();
    await expect(call(context)).not.to.revert(ethers);
  });
}

export function shouldWorkWhilePaused(call, getContext) {
  it("works while paused", async function () {
    const context = getContext();
    await context.subject.connect(context.pauser).pause();
    await expect(call(context)).not.to.revert(ethers);
  });
}
