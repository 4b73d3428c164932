"""A file of settings to begin with: every setting, what it means, and its default."""

from __future__ import annotations

import json
import secrets
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from far_mesh.marketplace.configuration.meanings import MEANINGS
from far_mesh.marketplace.settings import Settings

HEAD = """\
Settings of a Far Mesh gateway. `far-mesh config check` says what is wrong with them, docs/operators.md what they are.
What is behind a # has its default, or none; take the # away to set it. A flag and a variable come before this file:
FAR_PORT=9000 before port = 8000. This file has secrets: chmod 600."""
WIDTH = 118

BEGIN: dict[str, str] = {
    "payment_provider": '"none"  # balances are granted (far-mesh ledger grant); evm: an escrow on a chain',
    "initial_peers": '["/ip4/127.0.0.1/tcp/31337/p2p/12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB"]',
}
"""What an example has in place of defaults."""

SHAPES: dict[str, str] = {
    "trusted_proxies": '["10.0.0.0/8", "2001:db8::5"]',
    "redis_url": '"redis://:password@127.0.0.1:6379/0"',
    "operators": '["0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"]',
    "location": '"52.5,13.4"',
    "chain_rpc_url": '"http://127.0.0.1:8545"',
    "database_url": '"postgresql+asyncpg://far:password@127.0.0.1/far"',
}
"""What settings without a default look like."""

TABLES = """\
# Models on sale, one table each. Prices are units of 1e-9 FAR per token; those of tiers take the place of the standard
# ones.
[[models]]
model = "far-demo"
prompt_price_units = 100000
completion_price_units = 200000
# min_nodes = 1

# [models.tiers.premium]
# prompt_price_units = 150000
# completion_price_units = 300000
"""


def example() -> str:
    """The file. Its secret of tokens is a new one each time, so nobody's is known."""
    head = [*(f"# {line}" for line in HEAD.splitlines()), ""]
    return "\n".join([*head, *_values(), "", *_tables()])


def _values() -> Iterator[str]:
    begin = BEGIN | {"jwt_secret": f'"{secrets.token_hex(32)}"'}
    for name, field in Settings.model_fields.items():
        if name == "models" or isinstance(field.default, BaseModel):
            continue
        yield from _meaning(name)
        if name in begin:
            yield f"{name} = {begin[name]}"
        else:
            yield f"# {name} = {SHAPES.get(name) or _toml(field.default)}"
        yield ""


def _tables() -> Iterator[str]:
    """Tables come last: in TOML all that follows a table belongs to it."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _meaning(name)
            yield from _table(name, field.default.model_dump(mode="json"))
    yield TABLES


def _table(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    plain = {key: value for key, value in content.items() if value is not None and not isinstance(value, dict)}
    if plain:
        yield f"# [{name}]"
        yield from (f"# {key} = {_toml(value)}" for key, value in plain.items())
        yield ""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _table(f"{name}.{key}", value)


def _meaning(name: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(MEANINGS.get(name, ""), WIDTH - 2)]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return '""'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value) if isinstance(value, int | float) else json.dumps(str(value))
