"""``far-mesh generate``: one clear sentence and an exit code for everything that cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import far_mesh.bench.cli
import far_mesh.cli
import far_mesh.embed_cli
import far_mesh.route_cli
from discovery.protocol.errors import FarError
from far_mesh.client import Token, TokenLogprob
from far_mesh.config import Grammar
from tests.support.documents import peer_of
from tests.support.swarm import run_python

NOBODY = f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('nobody')}"


def refused(code: str, words: str, **changes: str) -> None:
    options = {"model": "far-demo", "prompt": "hello", "initial-peers": NOBODY} | changes
    arguments = ["generate", *(word for name, value in options.items() for word in (f"--{name}", value))]
    plain = CliRunner().invoke(far_mesh.cli.app, arguments)
    assert (plain.exit_code, plain.stdout) == (1, "")
    (line,) = plain.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    told = CliRunner().invoke(far_mesh.cli.app, [*arguments, "--json"])
    assert (told.exit_code, told.stderr) == (1, "")
    event = json.loads(told.stdout)
    assert (event["event"], event["code"], event["retry"]) == ("error", code, FarError._by_code[code].retry)
    assert words in event["message"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max-tokens", "0", "max_tokens must be at least 1"),
        ("max-tokens", "-3", "max_tokens must be at least 1"),
        ("temperature", "3", "temperature must be from 0 to 2"),
        ("temperature", "nan", "temperature must be from 0 to 2"),
        ("top-p", "0", "top_p must be above 0"),
        ("seed", str(2**64), "seed must fit in 64 bits"),
        ("top-k", "-1", "top_k must be 0 (all) or more"),
        ("min-p", "nan", "min_p must be from 0 to 1"),
        ("presence-penalty", "3", "presence_penalty must be from -2 to 2"),
        ("frequency-penalty", "-3", "frequency_penalty must be from -2 to 2"),
        ("logprobs", "21", "logprobs must be from 0 to 20"),
        ("json-schema", "nowhere.json", "nowhere.json cannot be read"),
        ("json-schema", __file__, "the JSON schema is no JSON"),
        ("regex", "", "the grammar is empty"),
        ("stop", "", "stop takes up to 16 strings"),
        ("prefer", "best", "'best' is not one of fastest, cheapest, balanced"),
        ("max-price", "-1", "max_price must be from 0"),
        ("max-latency", "0", "max_latency must be more than 0"),
        ("region", "Europe", "a region is written like eu-west"),
        ("quantization", "int3", "'int3' is not one of none, int8, nf4"),
        ("trusted-only", "me", "neither a peer id nor a wallet"),
        ("min-tps", "nan", "min_tps must be more than 0"),
        ("max-load", "2", "max_load must be from 0 to 1"),
        ("max-hops", "0", "max_hops must be at least 1"),
        ("near", "Berlin", "near 'Berlin' is not a latitude and a longitude"),
        ("max-distance-km", "0", "max_distance_km must be more than 0"),
        ("location", "91,0", "location '91,0' is not a latitude"),
        ("geoip-db", "nowhere.mmdb", "nowhere.mmdb cannot be read"),
        ("discovery", "far.example", "--discovery is not the address of a service"),
        ("initial-peers", "nonsense", "not a multiaddr"),
        ("initial-peers", "/ip4/127.0.0.1/tcp/31337", "names no peer id"),
    ],
)
def test_an_option_that_means_nothing(option: str, value: str, words: str) -> None:
    refused("invalid_argument", words, **{option: value})


def test_a_schema_and_a_regular_expression_do_not_go_together(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    refused("invalid_argument", "not both", **{"json-schema": str(file), "regex": "a"})
    assert far_mesh.cli._grammar(file, None) == Grammar.json_object()
    assert far_mesh.cli._grammar(None, "a+") == Grammar.regex("a+")
    assert far_mesh.cli._grammar(None, None) is None


def test_log_probabilities_are_told_with_bytes_as_numbers() -> None:
    own, other = TokenLogprob(5, b"\xe2\x82", -0.5), TokenLogprob(6, b"a", -1.5)
    assert far_mesh.cli._logprobs(Token(5, "", 0, own, (own, other))) == {
        "logprob": -0.5,
        "bytes": [0xE2, 0x82],
        "top": [{"id": 5, "bytes": [0xE2, 0x82], "logprob": -0.5}, {"id": 6, "bytes": [97], "logprob": -1.5}],
    }
    assert far_mesh.cli._logprobs(Token(5, "x")) == {}


def test_a_bootstrap_peer_that_is_not_running() -> None:
    refused("peer_unavailable", "is the bootstrap peer running?")


def test_a_way_of_pooling_that_there_is_not() -> None:
    arguments = ["embed", "--model", "far-demo", "--text", "hello", "--initial-peers", NOBODY, "--pooling", "max"]
    ended = CliRunner().invoke(far_mesh.cli.app, [*arguments, "--json"])
    event = json.loads(ended.stdout)
    assert (ended.exit_code, event["code"]) == (1, "invalid_argument")
    assert "'max' is not one of mean, last, cls" in event["message"]


COMMANDS = {
    "generate": ["generate", "--model", "far-demo", "--prompt", "a"],
    "route": ["route", "--model", "far-demo"],
    "embed": ["embed", "--model", "far-demo", "--text", "a"],
    "latency": ["bench", "latency"],
    "throughput": ["bench", "throughput"],
    "failover": ["bench", "failover", "--kill-command", "true {peer_id}"],
}
"""Every command that joins a swarm."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_joins_through_peers_a_service_or_a_private_swarm(command: str, tmp_path: Path) -> None:
    def said(*options: str) -> tuple[str, str]:
        ended = CliRunner().invoke(far_mesh.cli.app, [*COMMANDS[command], *options, "--json"])
        assert ended.exit_code == 1, ended.output
        event = json.loads(ended.stdout)
        return event["code"], event["message"]

    code, message = said()
    assert code == "invalid_argument"
    assert all(way in message for way in ("--initial-peers", "--discovery", "--swarm"))
    assert said("--discovery", "far.example")[0] == "invalid_argument"
    code, message = said("--discovery", "http://127.0.0.1:9")
    assert (code, "http://127.0.0.1:9 does not answer" in message) == ("peer_unavailable", True)
    charter = tmp_path / "acme.swarm"
    charter.write_text("{}")
    assert said("--swarm", str(charter), "--invite", "far-invite-x")[0] == "membership_invalid"
    assert said("--initial-peers", NOBODY, "--swarm", str(charter))[0] == "membership_invalid"


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate"],
        ["generate", "--max-tokens", "many"],
        ["generate", "--model", "far-demo", "--prompt", "a", "--initial-peers", NOBODY, "--local-blocks-first", "-1"],
        ["embed"],
        ["embed", "--model", "far-demo", "--text", "a", "--initial-peers", NOBODY, "--local-blocks-last", "-1"],
        ["generat"],
    ],
)
def test_a_usage_error_has_exit_code_2(arguments: list[str]) -> None:
    ended = CliRunner().invoke(far_mesh.cli.app, arguments)
    assert ended.exit_code == 2
    assert "Usage" in ended.output


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from typer.testing import CliRunner
import far_mesh.cli
for arguments in (["--help"], ["generate", "--help"], ["route", "--help"], ["embed", "--help"]):
    ended = CliRunner().invoke(far_mesh.cli.app, arguments)
    assert ended.exit_code == 0 and "Usage" in ended.output
heavy = {"torch", "transformers", "hivemind", "numpy", "web3", "fastapi"} & set(sys.modules)
assert not heavy, heavy
"""
    ended = run_python(program)
    assert ended.status == 0, ended.err
