"""The tables of settings say what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from discovery.service import settings as discovery
from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.configuration.meanings import MEANINGS
from far_mesh.marketplace.errors import MissingSetting
from far_mesh.marketplace.inference.meshes import swarm_meshes
from far_mesh.marketplace.settings import PREFIX, ModelOffer, Settings
from far_node import settings as node
from tests.docs.pages import PAGES, ROOT, bare, name_of, table

OPERATORS = ROOT / "docs" / "operators.md"
NEEDED = "**needed**"
ENOUGH: dict[str, Any] = {
    "chain_rpc_url": "http://127.0.0.1:8545",
    "token_address": "0x" + "11" * 20,
    "escrow_address": "0x" + "22" * 20,
    "settler_private_key": SecretStr("0x" + "33" * 32),
    "jwt_secret": SecretStr("x" * 32),
    "models": (ModelOffer(model="far-demo", completion_price_units=1),),
    "initial_peers": ("/ip4/127.0.0.1/tcp/31337",),
}


def documented(header: str) -> dict[str, str]:
    return {bare(row[0]): row[1] for row in table(OPERATORS, header)}


def check_default(said: str, field: FieldInfo, name: str) -> None:
    if said == NEEDED:
        assert field.is_required() or not field.default, name
    elif field.default in ("", None, ()) or isinstance(field.default, BaseModel):
        assert said.startswith("derived: "), name
    else:
        assert said == str(field.default), name


@pytest.mark.parametrize(
    ("header", "kind", "prefix"),
    [("| variable | default", Settings, PREFIX), ("| field | default", ModelOffer, "")],
    ids=["settings", "models on sale"],
)
def test_every_setting_is_in_the_table_with_its_default(header: str, kind: type[BaseModel], prefix: str) -> None:
    said = documented(header)
    fields = {prefix + (name.upper() if prefix else name): field for name, field in kind.model_fields.items()}
    assert set(said) == set(fields)
    for name, field in fields.items():
        check_default(said[name], field, name)


def test_an_example_of_a_file_explains_settings_in_the_same_words() -> None:
    said = {bare(row[0]): _plain(row[2]) for row in table(OPERATORS, "| variable | default")}
    explained = {PREFIX + name.upper(): meaning for name, meaning in MEANINGS.items()}
    assert explained == said, "far_mesh/marketplace/configuration/meanings.py has to say what the table says"


def _plain(cell: str) -> str:
    """A cell without links and marks; what is JSON in a variable is not in a file."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("JSON ", "").replace("`", "")


def test_what_is_needed_is_missed() -> None:
    needed = {name for name, said in documented("| variable | default").items() if said == NEEDED}
    assert needed == {PREFIX + name.upper() for name in ENOUGH}
    create_app(Settings(**ENOUGH))
    for name in ENOUGH.keys() - {"initial_peers"}:
        with pytest.raises(MissingSetting, match=PREFIX + name.upper()):
            create_app(Settings(**{key: value for key, value in ENOUGH.items() if key != name}))


async def test_initial_peers_are_missed() -> None:
    with pytest.raises(MissingSetting, match="FAR_INITIAL_PEERS"):
        async with swarm_meshes(Settings(**{**ENOUGH, "initial_peers": ()})):
            pass


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_speaks_of_a_variable_that_nobody_reads(page: Path) -> None:
    text = page.read_text()
    others = {"FAR_ANVIL", "FAR_CACHE_DIR", "FAR_CONFIG", "FAR_MODELS_DIR", "FAR_MODELS_MAX_SIZE", "FAR_REGISTRY_TOKEN"}
    others |= {"FAR_API_KEY", "FAR_GATEWAY_URL", "FAR_KEYSTORE", "FAR_KEYSTORE_PASSWORD_FILE", "FAR_WALLET_KEY"}
    others |= {"FAR_DASHBOARD_URL"}
    known = {PREFIX + name.upper() for name in Settings.model_fields} | others
    known |= {node.variable(name) for name in node.FIELDS} | {node.PREFIX, node.NAME_VARIABLE, node.FILE_VARIABLE}
    known |= {discovery.PREFIX + name.upper() for name in discovery.Settings.model_fields}
    known |= {discovery.PREFIX, discovery.FILE}
    code = "".join(file.read_text() for folder in ("discovery", "far_node", "far_mesh") for file in _code(folder))
    assert all(f'"{other}"' in code for other in others)
    tests = {"FAR_BROWSER", "FAR_CHROMIUM", "FAR_SCREENSHOTS"}
    assert all(f'"{one}"' in "".join(file.read_text() for file in _code("tests/browser")) for one in tests)
    page_server = {"FAR_GATEWAY"}
    assert all(f'"{one}"' in (ROOT / "frontend" / "next.config.ts").read_text() for one in page_server)
    shell = set(re.findall(r"(?:export |\s)(FAR_\w+)=", (ROOT / "docs" / "trying.md").read_text()))
    assert set(re.findall(r"\bFAR_[A-Z_]+\b", text)) <= known | tests | page_server | shell


def _code(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))
