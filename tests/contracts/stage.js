// The escrow and the people around it, as the test that runs at the moment finds them.
import { expect } from "chai";
import { loadFixture } from "./support.js";

export let context, escrow, token, admin, settler, pauser, treasurer, user, other, stranger, providers, id, deadline;

/** For behaviours that are declared before the context exists. */
export const getContext = () => context;

/** Each test of the present `describe` starts from what `fixture` returns. */
export function startFrom(fixture) {
  beforeEach(async function () {
    context = await loadFixture(fixture);
    ({ escrow, token, admin, settler, pauser, treasurer, user, other, stranger, providers, id, deadline } = context);
  });
}

/** The escrow refuses `call` with exactly this error. */
export const refused = (call, error, ...args) =>
  expect(call)
    .to.be.revertedWithCustomError(escrow, error)
    .withArgs(...args);
