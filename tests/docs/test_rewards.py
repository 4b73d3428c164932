"""What docs/providers.md says of errors and states of money is what there is."""

from __future__ import annotations

import far_node.rewards.errors
from far_mesh.marketplace.provider.schemas import ClaimState, LineState
from tests.docs.pages import ROOT, bare, table
from tests.docs.test_errors import family

PROVIDERS = ROOT / "docs" / "providers.md"


def test_every_error_of_rewards_is_told_of_and_no_other() -> None:
    told = {bare(row[0]) for row in table(PROVIDERS, "| code | what to do")}
    assert told == {kind.code for kind in family() if kind.__module__ == far_node.rewards.errors.__name__}


def test_every_state_is_told_of() -> None:
    assert {bare(row[0]) for row in table(PROVIDERS, "| state | means")} == {str(state) for state in LineState}
    page = (ROOT / "docs" / "marketplace.md").read_text()
    assert all(f"`{state}`" in page for state in (*LineState, *ClaimState))
