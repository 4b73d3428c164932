"""Settings of a node: who comes first is heard, and everything that is wrong is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

import far_node.cli
from discovery.protocol.errors import InvalidArgument
from discovery.settings import DEFAULT, ENVIRONMENT, FLAG
from far_node.config import DEFAULT_HOST_MADDR
from far_node.settings import (
    FIELDS,
    InvalidSettings,
    Place,
    check,
    find_identity,
    gather,
    node_config,
    places,
    read,
    shown_value,
)
from tests.support.documents import peer_of, wallet_of

PEER = f"/ip4/198.51.100.4/tcp/31337/p2p/{peer_of('bootstrap')}"
NEEDED: dict[str, Any] = {"model": "far-demo", "wallet": wallet_of("me"), "initial_peers": (PEER,)}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of its own, in which files of settings count."""
    monkeypatch.delenv("FAR_NODE_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".far"


def write(text: str, place: Place = Place()) -> Path:  # noqa: B008  # a frozen value
    place.home.mkdir(parents=True, exist_ok=True)
    place.file.write_text(text)
    return place.file


def messages(flags: dict[str, Any]) -> list[str]:
    return [error.message for error in check(gather(flags, Place()))[1]]


def test_a_flag_comes_before_a_variable_before_the_file_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("price = 1\ncache_mb = 10\nthreads = 1\n")
    monkeypatch.setenv("FAR_NODE_PRICE", "2")
    monkeypatch.setenv("FAR_NODE_CACHE_MB", "20")
    found, said = read(NEEDED | {"price": 3}, Place()), gather({"price": 3}, Place())
    assert (found.price, found.cache_mb, found.threads, found.max_sessions) == (3, 20, 1, 64)
    origins = [said.origin(name) for name in ("price", "cache_mb", "threads", "max_sessions")]
    assert origins == [FLAG, ENVIRONMENT, str(file), DEFAULT]


@pytest.mark.parametrize(
    ("file", "variables", "flags", "device"),
    [
        ("gpu = 1", {}, {}, "cuda:1"),
        ("gpu = 1", {}, {"cpu_only": True}, "cpu"),
        ("cpu_only = true", {"FAR_NODE_GPU": "0"}, {}, "cuda:0"),
        ("cpu_only = true", {"FAR_NODE_GPU": "0"}, {"device": "mps"}, "mps"),
        ("cpu_only = true", {"FAR_NODE_CPU_ONLY": "false"}, {}, "auto"),
        ("gpu = 1", {"FAR_NODE_CPU_ONLY": "no"}, {}, "cuda:1"),
    ],
)
def test_what_excludes_each_other_is_decided_by_who_comes_first(
    monkeypatch: pytest.MonkeyPatch, file: str, variables: dict[str, str], flags: dict[str, Any], device: str
) -> None:
    write(file)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert node_config(read(NEEDED | flags, Place()), Place()).device == device


def test_what_one_source_says_and_excludes_each_other_is_an_error() -> None:
    write("gpu = 1\ncpu_only = true")
    assert messages(NEEDED) == ["--gpu and --cpu-only exclude each other"]


def test_lists_in_variables_are_divided_by_commas_and_what_is_empty_is_not_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAR_NODE_INITIAL_PEERS", f" {PEER} ,, {PEER}x")
    monkeypatch.setenv("FAR_NODE_MODEL", "  ")
    write('model = "far-demo"\nhost_maddr = "/ip4/127.0.0.1/tcp/5"\npublic_addr = []')
    values = gather({}, Place()).values
    assert values["initial_peers"] == (PEER, PEER + "x")
    assert values["model"] == "far-demo"
    assert "public_addr" not in values
    assert check(gather({}, Place()), addresses=False)[0].host_maddr == ("/ip4/127.0.0.1/tcp/5",)


def test_everything_that_is_wrong_is_said_at_once_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write('quantization = "int3"\ncach_mb = 5\nthreads = "many"\nqueue_size = 0\n')
    monkeypatch.setenv("FAR_NODE_WALLET", "0x123")
    monkeypatch.setenv("FAR_NODE_PRIZE", "1")
    found = messages({"region": "Europa!", "initial_peers": ("nonsense",)})
    expected = [
        f"there is no setting 'cach_mb'; did you mean 'cache_mb'? ({file})",
        "nobody reads FAR_NODE_PRIZE; did you mean FAR_NODE_PRICE?",
        "the setting FAR_NODE_THREADS is not usable",
        "'nonsense' is not a multiaddr",
        "--region 'Europa!' is not written like eu-west",
        "40 hexadecimal digits are expected (FAR_NODE_WALLET)",
        f"--quantization 'int3' is not one of none, int8, nf4 (quantization in {file})",
        f"--queue-size must be at least 1 (queue_size in {file})",
        "model is not set: --model, FAR_NODE_MODEL",
    ]
    assert len(found) == len(expected), found
    for words in expected:
        assert any(words in one for one in found), words
    with pytest.raises(InvalidSettings, match=r"cach_mb.*FAR_NODE_PRIZE"):
        read({}, Place())


@pytest.mark.parametrize("content", ["price = ", "price = 1\nprice = 2", "= 3"])
def test_a_file_that_is_no_toml_is_named(content: str) -> None:
    file = write(content)
    assert any(one.startswith(f"{file} is not TOML") for one in messages(NEEDED))


@pytest.mark.parametrize(
    "text",
    [
        "wallet = 5",
        "cache_mb = 0",
        'cache_mb = "much"',
        "gpu = -1",
        "reserve_gb = nan",
        'log_level = "loud"',
        "model = 5",
        'cpu_only = "perhaps"',
        "initial_peers = [1]",
        "drain_timeout = -1",
        'location = "north"',
        'discovery = "ftp://x"',
    ],
)
def test_values_that_mean_nothing_are_errors_of_their_setting(text: str) -> None:
    file = write(text)
    _, errors = check(gather({}, Place()), needed=False)
    (error,) = errors
    key = text.partition(" ")[0]
    assert (error.facts["setting"], error.facts["origin"]) == (f"FAR_NODE_{key.upper()}", str(file))


def test_what_a_node_cannot_do_without_is_named_with_all_places_where_it_can_stand() -> None:
    assert [one.partition(" ")[0] for one in messages({})] == ["model", "wallet", "initial_peers"]
    assert [one.partition(" ")[0] for one in messages({"discovery": "https://far.example"})] == ["model", "wallet"]


def test_a_file_that_was_asked_for_has_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for said in (gather({}, Place(), tmp_path / "absent.toml"),):
        assert "no file of settings" in said.problems[0].message
    monkeypatch.setenv("FAR_NODE_CONFIG", str(tmp_path))
    assert "no file of settings" in gather({}, Place()).problems[0].message
    write("price = 7")
    monkeypatch.setenv("FAR_NODE_CONFIG", "")
    assert gather({}, Place()).values == {}


def test_peers_that_a_discovery_service_names_come_after_those_that_are_known() -> None:
    hint = f"/ip4/198.51.100.5/tcp/31337/p2p/{peer_of('other')}"
    config = node_config(read(NEEDED, Place()), Place(), (hint, PEER))
    assert config.initial_peers == (PEER, hint)
    assert config.host_maddrs == (DEFAULT_HOST_MADDR,)


class TestSeveralNodes:
    """One machine, several nodes."""

    def test_each_has_its_own_settings_and_identity(self, home: Path) -> None:
        write("price = 1")
        write("price = 2", Place("second"))
        assert read(NEEDED, Place.of("second")).price == 2
        assert node_config(read(NEEDED, Place("second")), Place("second")).identity == home / "nodes/second/identity"
        assert read(NEEDED, Place.of(None)).price == 1
        assert list(places()) == [Place(), Place("second")]

    def test_a_variable_names_the_one_that_is_meant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAR_NODE_NAME", "second")
        assert Place.of(None) == Place("second")
        assert Place.of("third") == Place("third")

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "x" * 33, "é"])
    def test_what_is_no_name_leads_nowhere(self, name: str) -> None:
        with pytest.raises(InvalidArgument, match="is not a name"):
            Place.of(name)


def test_the_node_that_is_meant_is_found_whatever_else_its_settings_say(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert find_identity(Place(), None) == home / "identity"
    write('identity = "/elsewhere/key"\nwallet = "nonsense"\nunknown = 1')
    assert find_identity(Place(), None) == Path("/elsewhere/key")
    monkeypatch.setenv("FAR_NODE_IDENTITY", "/third/key")
    assert find_identity(Place(), None) == Path("/third/key")
    assert find_identity(Place(), Path("mine")) == Path("mine")


def test_passwords_in_addresses_are_not_shown() -> None:
    assert shown_value("https://me:secret@far.example/x") == "https://***@far.example/x"
    assert shown_value(["https://far.example", 5, None]) == ["https://far.example", 5, None]


def test_settings_are_the_flags_of_start_with_their_defaults() -> None:
    flags = {one.name: one.default for one in typer.main.get_command(far_node.cli.app).commands["start"].params}  # type: ignore[attr-defined]
    assert set(flags) - set(FIELDS) == {"name", "config", "json"}
    for name, about in FIELDS.items():
        default = list(about.default) if isinstance(about.default, tuple) else about.default
        said = flags[name]
        assert (list(said) if isinstance(said, tuple) else said) == default, name
