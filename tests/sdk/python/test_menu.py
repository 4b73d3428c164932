"""Every call is one of the document, both clients have it, and so has the SDK for TypeScript."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from farlabs import AsyncFarLabsClient, FarLabsClient, calls, parameters
from farlabs.exchange import Call, send_voucher
from farlabs.signing import Voucher

ROOT = Path(__file__).parents[3]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "sdk" / "openapi.json").read_text())
VALUES: dict[str, Any] = {
    "str": "x",
    "int": 7,
    "float": 7.5,
    "bool": True,
    "date": "2026-02-01",
    "datetime": "2026-02-01T00:00:00Z",
    "tuple": (1.0, 2.0),
    "Sequence": ["x"],
    "GenerateOptions": {"top_p": 0.5},
    "QuoteOptions": {"raw": True},
    "JobOptions": {"top_p": 0.5},
    "KeyLimits": {"units_per_day": 7},
    "ClaimRequest": {"node_id": "x"},
}


def every_call() -> list[tuple[str, Call[Any]]]:
    """Each, with everything that can be given."""
    found = []
    for name, make in vars(calls).items():
        if name.startswith("_") or not inspect.isfunction(make) or make.__module__ != calls.__name__:
            continue
        given = {}
        for parameter in inspect.signature(make).parameters.values():
            kind = re.split(r"[\[|]", str(parameter.annotation))[0].strip()
            given[parameter.name] = VALUES[kind]
        found.append((name, make(**given)))
    assert len(found) > 45
    return [*found, ("send_voucher", send_voucher(Voucher("0x1", 7, "0x2")))]


def operation_of(call: Call[Any]) -> tuple[str, dict[str, Any]]:
    """The path in the document, and what it says of it."""
    path = call.path.partition("?")[0]
    named = [one for one in DOCUMENT["paths"] if one == path]
    for pattern in [*named, *DOCUMENT["paths"]]:
        form = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern))
        if re.fullmatch(form, path) and call.method.lower() in DOCUMENT["paths"][pattern]:
            operation: dict[str, Any] = DOCUMENT["paths"][pattern][call.method.lower()]
            return pattern, operation
    raise AssertionError(f"{call.method} {path} is not in the document")


@pytest.mark.parametrize(("name", "call"), every_call(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_call_is_one_of_the_document(name: str, call: Call[Any]) -> None:
    _, operation = operation_of(call)
    told = operation.get("parameters", [])
    assert set(call.query) <= {one["name"] for one in told if one["in"] == "query"}
    takes_key = any(one["name"].lower() == "idempotency-key" for one in told)
    assert (call.key is not None) == takes_key
    needs_name = "security" in operation
    assert needs_name == (not call.is_public or call.token is not None)
    said = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    assert (call.body is not None) == (said is not None) or name in ("sign_out",)
    for schema in [said, *(said or {}).get("anyOf", [])] if call.body is not None else []:
        if schema is not None and "$ref" in schema:
            fields = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
            assert isinstance(call.body, dict)
            assert set(call.body) <= set(fields)


def test_what_can_be_given_is_what_the_document_takes() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for options, of, named in (
        (parameters.GenerateOptions, "GenerateRequest", {"prompt", "messages", "max_tokens", "temperature", "stream"}),
        (parameters.QuoteOptions, "QuoteRequest", {"prompt", "messages", "max_tokens"}),
        (parameters.JobOptions, "JobRequest", {"prompt", "messages", "max_tokens"}),
    ):
        assert set(get_type_hints(options)) | named | {"model_id"} == set(schemas[of]["properties"])


def menu(kind: type[Any]) -> dict[str, list[str]]:
    """Its public methods and their parameters."""
    members = inspect.getmembers(kind, inspect.isfunction)
    return {name: list(inspect.signature(member).parameters) for name, member in members if not name.startswith("_")}


def test_both_clients_have_the_same_menu() -> None:
    threads, loop = menu(FarLabsClient), menu(AsyncFarLabsClient)
    assert {("close" if name == "aclose" else name): said for name, said in loop.items()} == threads
    assert list(inspect.signature(FarLabsClient).parameters)[:3] == ["api_url", "wallet_address", "private_key"]


def test_every_call_is_a_method() -> None:
    assert {name for name, _ in every_call()} <= set(menu(FarLabsClient))


def test_the_menu_is_that_of_the_sdk_for_typescript() -> None:
    files = (ROOT / "sdk" / "typescript" / "src" / "actions").glob("*.ts")
    names = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", file.stem).lower() for file in files}
    assert len(names) > 45
    assert names - set(menu(FarLabsClient)) == set()


@pytest.mark.parametrize("tool", ["generate_models.py", "generate_client.py"])
def test_what_is_generated_is_fresh(tool: str) -> None:
    command = [sys.executable, str(ROOT / "sdk" / "python" / "tools" / tool), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
