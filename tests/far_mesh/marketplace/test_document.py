"""The document of the interface: what it says is so, and nothing else happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from far_mesh.marketplace.chain.client import address_of
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.doubles import MeshDouble
from tests.far_mesh.marketplace.fuzzing import MEANS_MORE, SIGNS_OUT, fuzz
from tests.far_mesh.marketplace.house import House, User, sign_in

DEPOSIT = 10**12
STATUSES_OF_ALL = {"429", "500", "503"}


@pytest.fixture(scope="module")
def operator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Who may do everything, and has money."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    key = "0x" + "0f" * 32
    settings = live.settings(
        database_url=f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('document') / 'm.db'}",
        unsettled_limit_units=10**15,
        operators=[address_of(key)],
    )
    with House(loop, live, settings, MeshDouble(tool_format=FORMATS[0])) as house:
        yield house.user(DEPOSIT, key=key)


@pytest.fixture(scope="module")
def document(operator: User) -> dict[str, Any]:
    found: dict[str, Any] = operator.house.app.openapi()
    return found


def test_the_gateway_does_what_its_document_says(operator: User, document: dict[str, Any]) -> None:
    found = fuzz(document, operator.house.url, operator.token, share=32)
    assert not found.failures, str(found)
    operations = sum(len(one) for one in document["paths"].values())
    assert len(found.requests) > operations // 2
    assert operator.http.get("/health").status_code == 200


def test_it_does_so_for_anybody(operator: User, document: dict[str, Any]) -> None:
    public = {
        path: operations
        for path, operations in document["paths"].items()
        if not any("security" in operation for operation in operations.values())
    }
    found = fuzz({**document, "paths": public}, operator.house.url, None, share=8)
    assert not found.failures, str(found)
    assert len(found.requests) > 5


def test_it_does_so_where_one_signs_out(operator: User, document: dict[str, Any]) -> None:
    token = sign_in(operator.http, "0x" + "0e" * 32)["token"]
    found = fuzz(document, operator.house.url, token, only=SIGNS_OUT)
    assert not found.failures, str(found)
    assert len(found.requests) == 2


def test_every_operation_tells_its_failures_in_the_one_shape(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert responses.keys() >= STATUSES_OF_ALL, f"{method} {path}"
            assert "422" not in responses, f"{method} {path}"
            for status in filter(lambda one: int(one) >= 400, responses):
                shape = responses[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                wanted = "Readiness" if path == "/ready" and status == "503" else "ErrorBody"
                assert shape == ("PaymentNeeded" if status == "402" else wanted), f"{method} {path} {status}"
            if operation.get("security"):
                assert responses.keys() >= {"401", "403"}, f"{method} {path}"
            if "requestBody" in operation:
                assert responses.keys() >= {"400", "408", "413", "415"}, f"{method} {path}"
            assert ("{" in path) <= ("404" in responses), f"{method} {path}"
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


def test_what_means_more_than_a_schema_says_is_there(document: dict[str, Any]) -> None:
    there = {f"{method.upper()} {path}" for path, one in document["paths"].items() for method in one}
    assert MEANS_MORE.keys() <= there
