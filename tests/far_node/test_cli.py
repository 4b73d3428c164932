"""``far-node``: one clear sentence and an exit code for everything that can be wrong at the start."""

from __future__ import annotations

import fcntl
import json
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import far_node.cli
from discovery.dht.identity import load_identity
from discovery.protocol.errors import FarError
from tests.support.documents import peer_of
from tests.support.models import make_model
from tests.support.swarm import run_command, run_python

WALLET = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
NOBODY = f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('nobody')}"


def start(tiny: Path, tmp_path: Path, *more: str, **changes: str) -> list[str]:
    """Arguments of a start that would work but for the bootstrap peer, with some replaced or added."""
    options = {
        "--model": str(tiny),
        "--wallet": WALLET,
        "--initial-peers": NOBODY,
        "--identity": str(tmp_path / "identity"),
        "--host-maddr": "/ip4/127.0.0.1/tcp/0",
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return ["start", "--cpu-only", *more, *(word for pair in options.items() for word in pair)]


def refused(arguments: list[str], code: str, words: str) -> None:
    """Said once to people on stderr, once to programs as JSON; exit code 1, no traceback."""
    plain = CliRunner().invoke(far_node.cli.app, arguments)
    assert plain.exit_code == 1, plain.output
    (line,) = plain.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    told = CliRunner().invoke(far_node.cli.app, [*arguments, "--json"])
    assert told.exit_code == 1
    assert told.stderr == ""
    event = json.loads(told.stdout.strip().splitlines()[-1])
    kind = FarError._by_code[code]
    assert (event["event"], event["code"], event["retry"]) == ("error", code, kind.retry)
    assert words in event["message"]


@pytest.mark.parametrize(
    ("wallet", "words"),
    [
        ("", "a wallet is needed"),
        ("   ", "a wallet is needed"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed", "checksum"),
        ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeg", "40 hexadecimal digits"),
        ("5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "40 hexadecimal digits"),
        ("vitalik.eth", "40 hexadecimal digits"),
    ],
)
def test_a_wallet_that_is_none(tiny: Path, tmp_path: Path, wallet: str, words: str) -> None:
    refused(start(tiny, tmp_path, wallet=wallet), "invalid_wallet", words)


@pytest.mark.parametrize(
    "blocks", ["", "3", "3:", ":3", "3:3", "4:3", "-1:3", "0:3:6", "all", "0x0:0x3", "0:99999", "٠:٣"]
)
def test_blocks_that_are_no_range(tiny: Path, tmp_path: Path, blocks: str) -> None:
    refused(start(tiny, tmp_path, blocks=blocks), "invalid_argument", "is not a range a:b with a < b")


@pytest.mark.parametrize("blocks", ["0:7", "6:7", "5:9999"])
def test_blocks_that_the_model_does_not_have(tiny: Path, tmp_path: Path, blocks: str) -> None:
    refused(
        start(tiny, tmp_path, blocks=blocks), "invalid_argument", f"blocks {blocks} are not within this model's 0:6"
    )


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("quantization", "int3", "not one of none, int8, nf4"),
        ("dtype", "float64", "not one of float32, bfloat16, float16"),
        ("threads", "0", "--threads must be at least 1"),
        ("attention", "flash", "not one of sdpa, eager"),
        ("num_blocks", "0", "--num-blocks must be at least 1"),
        ("num_blocks", "7", "--num-blocks 7 is more than this model's 6"),
        ("context_length", "257", "--context-length 257 is more than this model's 256"),
        ("gpu_memory_fraction", "1.5", "--gpu-memory-fraction must be more than 0"),
        ("max_sessions", "0", "--max-sessions must be at least 1"),
        ("max_batch_size", "0", "--max-batch-size must be at least 1"),
        ("queue_timeout", "0", "--queue-timeout must be more than 0 seconds"),
        ("drain_timeout", "-1", "--drain-timeout must be between 0 and 86400 seconds"),
        ("public_addr", "example.org", "neither IP:PORT nor a multiaddr"),
        ("public_addr", "/not/a/multiaddr", "not a multiaddr"),
        ("public_addr", "/ip4/1.2.3.4/tcp/0", "port"),
        ("public_addr", "999.2.3.4:80", "not a multiaddr"),
        ("host_maddr", "nonsense", "not a multiaddr"),
        ("host_maddr", "/ip4/127.0.0.1/tcp/99999", "not a multiaddr"),
        ("initial_peers", "nonsense", "not a multiaddr"),
        ("initial_peers", "", "not a multiaddr"),
        ("initial_peers", "/ip4/127.0.0.1/tcp/31337", "names no peer id"),
        ("initial_peers", "/ip4/127.0.0.1/tcp/31337/p2p/nobody", "not a multiaddr"),
        ("model_id", "m" * 257, "256"),
    ],
)
def test_an_option_that_means_nothing(tiny: Path, tmp_path: Path, option: str, value: str, words: str) -> None:
    refused(start(tiny, tmp_path, **{option: value}), "invalid_argument", words)


def test_a_gpu_that_is_wanted_and_not(tiny: Path, tmp_path: Path) -> None:
    refused(start(tiny, tmp_path, gpu="0"), "invalid_argument", "--gpu and --cpu-only exclude each other")


def test_a_device_that_is_not_there(tiny: Path, tmp_path: Path) -> None:
    arguments = [word for word in start(tiny, tmp_path, device="cuda:63") if word != "--cpu-only"]
    refused(arguments, "invalid_argument", "cuda:63")


def test_blocks_by_range_and_by_number(tiny: Path, tmp_path: Path) -> None:
    both = start(tiny, tmp_path, blocks="0:3", num_blocks="3")
    refused(both, "invalid_argument", "--blocks and --num-blocks exclude each other")


def test_offload_without_a_gpu(tiny: Path, tmp_path: Path) -> None:
    refused(start(tiny, tmp_path, "--cpu-offload"), "invalid_argument", "--cpu-offload is for nodes with a GPU")


def test_a_model_of_which_not_one_block_fits(tiny: Path, tmp_path: Path) -> None:
    refused(start(tiny, tmp_path, reserve_gb="100000"), "does_not_fit", "even one block of this model (int8) needs")


@pytest.mark.parametrize(
    "command", [["status"], ["load", "far-demo"], ["unload", "far-demo"], ["swap", "far-demo", "far-demo"], ["stop"]]
)
def test_a_command_to_a_node_that_does_not_run(tmp_path: Path, command: list[str]) -> None:
    identity = tmp_path / "identity"
    refused(
        [*command, "--identity", str(identity)], "peer_unavailable", f"no node runs here with the identity {identity}"
    )


def test_options_of_a_second_model_that_mean_nothing(tmp_path: Path) -> None:
    refused(["load", "far-demo", "--quantization", "int3"], "invalid_argument", "not one of none, int8, nf4")
    refused(["swap", "a", "far-demo", "--blocks", "3:1"], "invalid_argument", "is not a range a:b with a < b")


def test_a_model_is_divided_among_ones_own_machines(tiny: Path) -> None:
    machines = ["--memory-gb", "4", "--memory-gb", "3", "--memory-gb", "2"]
    ended = CliRunner().invoke(far_node.cli.app, ["plan", str(tiny), *machines])
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines() == ["4 GiB: --blocks 0:4", "3 GiB: --blocks 4:6", "2 GiB: nothing"]
    told = CliRunner().invoke(far_node.cli.app, ["plan", str(tiny), *machines, "--reserve-gb", "1", "--json"])
    assert [json.loads(line)["blocks"] for line in told.stdout.splitlines()] == [[0, 3], [3, 5], [5, 6]]


def test_machines_that_are_too_small_together(tiny: Path) -> None:
    refused(["plan", str(tiny), "--memory-gb", "2"], "does_not_fit", "these machines have room for 0")


@pytest.mark.parametrize("model", ["no-such-model", "/no/such/directory", ""])
def test_a_model_that_is_not_there(tiny: Path, tmp_path: Path, model: str) -> None:
    refused(start(tiny, tmp_path, model=model or str(tmp_path)), "model_unavailable", "model")


def test_weights_that_could_run_code(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    refused(start(model, tmp_path), "unsafe_weights", "pytorch_model.bin, which can run code")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "gemma3n_text", "architectures": ["Gemma3nForCausalLM"]}, "per-layer embeddings"),
        ({"model_type": "minimax"}, "a cache class of its own"),
        ({"model_type": "t5"}, "no causal language model head"),
        ({"model_type": "from-the-future"}, "cannot be used"),
        ({}, "cannot be used"),
    ],
)
def test_an_architecture_that_cannot_be_cut(tiny: Path, tmp_path: Path, config: dict[str, object], words: str) -> None:
    model = make_model(tmp_path / "model")
    (model / "config.json").write_text(json.dumps(config))
    refused(start(model, tmp_path), "model_unsupported", words)


def test_code_that_a_repository_brings_is_not_run(tiny: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    touched = tmp_path / "touched"
    (model / "modeling_evil.py").write_text(f"open({str(touched)!r}, 'w')")
    (model / "configuration_evil.py").write_text(f"open({str(touched)!r}, 'w')")
    evil = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": evil}))
    refused(start(model, tmp_path), "model_unsupported", "cannot be used")
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ed25519"),
        (b"\x08\x00\x12\xa7\x09" + bytes(1191), "is not an ed25519"),
        (bytes(68), "is not an ed25519"),
    ],
    ids=["empty", "rsa", "zeros"],
)
def test_an_identity_that_is_none(tiny: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "identity").write_bytes(content)
    refused(start(tiny, tmp_path), "invalid_identity", words)


def test_an_identity_that_is_damaged(tiny: Path, tmp_path: Path) -> None:
    path = load_identity(tmp_path / "identity").path
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00"[:1])
    refused(start(tiny, tmp_path), "invalid_identity", "damaged")


def test_an_identity_that_cannot_be_written(tiny: Path, tmp_path: Path) -> None:
    refused(start(tiny, tmp_path, identity=str(tmp_path)), "invalid_identity", "cannot be used")


def test_an_identity_that_another_peer_uses(tiny: Path, tmp_path: Path) -> None:
    with load_identity(tmp_path / "identity").path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused(start(tiny, tmp_path), "invalid_identity", "another process on this machine runs with the identity")


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_in_use(tiny: Path, tmp_path: Path, busy_port: int) -> None:
    arguments = start(tiny, tmp_path, host_maddr=f"/ip4/127.0.0.1/tcp/{busy_port}")
    refused(arguments, "invalid_argument", f"cannot listen on /ip4/127.0.0.1/tcp/{busy_port}: Address already in use")


def test_a_bootstrap_peer_that_is_not_running(tiny: Path, tmp_path: Path) -> None:
    refused(start(tiny, tmp_path), "peer_unavailable", "is the bootstrap peer running?")


def test_a_start_without_what_it_needs_says_all_that_is_missing() -> None:
    ended = CliRunner().invoke(far_node.cli.app, ["start", "--cpu-only", "--quantization", "int3"])
    assert ended.exit_code == 1
    wrong, *missing = ended.stderr.strip().splitlines()
    assert "int3" in wrong
    assert [line.split()[1] for line in missing] == ["model", "wallet", "initial_peers"]
    assert all("far-node init" in line for line in missing)


def test_a_discovery_service_that_is_away(tiny: Path, tmp_path: Path) -> None:
    arguments = start(tiny, tmp_path, discovery="http://127.0.0.1:9")
    said = "the discovery service http://127.0.0.1:9 does not answer"
    ended = CliRunner().invoke(far_node.cli.app, arguments)
    warned, *_, last = ended.stderr.strip().splitlines()
    assert (json.loads(warned)["event"], json.loads(warned)["reason"]) == (
        "discovery_unavailable",
        f"{said}: ConnectError",
    )
    assert "is the bootstrap peer running?" in last, "a peer that is known is tried all the same"
    of_a_peer = arguments.index("--initial-peers")
    refused([*arguments[:of_a_peer], *arguments[of_a_peer + 2 :]], "peer_unavailable", said)


@pytest.mark.parametrize("arguments", [["strat"], ["start", "--cache-mb", "0"], ["start", "--gpu", "0,1"], ["config"]])
def test_a_usage_error_has_exit_code_2(arguments: list[str]) -> None:
    ended = CliRunner().invoke(far_node.cli.app, arguments)
    assert ended.exit_code == 2
    assert "Usage" in ended.output


def test_the_real_command_says_it_on_stderr_without_a_traceback(tmp_path: Path) -> None:
    ended = run_command(
        *("far_node.cli", "start", "--model", "far-demo", "--wallet", WALLET, "--initial-peers", NOBODY),
        *("--identity", str(tmp_path), "--cpu-only"),
    )
    assert (ended.status, ended.out.strip()) == (1, "looking for far-demo …")
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")


def test_it_tells_its_version() -> None:
    written_down = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
    assert CliRunner().invoke(far_node.cli.app, ["--version"]).output.strip() == written_down


def test_help_imports_nothing_heavy() -> None:
    program = """
import sys
from typer.testing import CliRunner
import far_node.cli, discovery.cli
for app, words in ((far_node.cli.app, ["start", "--help"]), (discovery.cli.app, ["bootstrap", "--help"])):
    for arguments in (["--help"], words):
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == 0 and "Usage" in ended.output
heavy = {"torch", "transformers", "hivemind", "numpy", "web3", "fastapi"} & set(sys.modules)
assert not heavy, heavy
"""
    ended = run_python(program)
    assert ended.status == 0, ended.err
