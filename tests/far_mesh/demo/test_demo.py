"""`far-mesh demo` as a newcomer runs it: real processes, a real chain."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from far_mesh.marketplace.dashboard.site import is_built
from tests.support.ports import free_port

pytestmark = pytest.mark.swarm

STORY = "Once upon a time, there was a brave rabbit named"


def demo(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "far_mesh.cli", "demo", "--data-dir", str(data_dir), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of what still runs for this data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if alive and str(data_dir) in line and process.pid != os.getpid() and "pytest" not in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(data_dir: Path) -> dict[str, Any]:
    ended = demo(data_dir, "--once", "--json", "--port", str(free_port()))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    shown: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return shown


def test_it_tells_a_story_and_says_who_told_it(result: dict[str, Any]) -> None:
    assert result["text"].startswith(STORY)
    assert result["text"].endswith("The end.")
    assert [node["blocks"] for node in result["nodes"]] == [[0, 3], [3, 6], [6, 8]]
    assert [node["quantization"] for node in result["nodes"]] == ["none", "int8", "none"]
    assert len({node["wallet"] for node in result["nodes"]}) == 3
    assert len({node["peer_id"] for node in result["nodes"]}) == 3


def test_every_unit_is_accounted_for_and_the_chain_paid_it(result: dict[str, Any]) -> None:
    paid = [node["paid_units"] for node in result["nodes"]]
    assert all(units > 0 for units in paid)
    assert sum(paid) + result["fee_units"] + result["refund_units"] == result["held_units"]
    assert [node["paid_wei"] for node in result["nodes"]] == [units * 10**9 for units in paid]


def test_work_is_counted_by_positions_and_blocks(result: dict[str, Any]) -> None:
    certain = result["prompt_tokens"] + result["completion_tokens"] - 1
    sizes = [end - first for first, end in (node["blocks"] for node in result["nodes"])]
    computed = {node["token_layers"] / size for node, size in zip(result["nodes"], sizes, strict=True)}
    assert len(computed) == 1, "all have computed the same positions"
    assert certain <= computed.pop() <= 2 * certain, "with the guesses that were wrong"


def test_nothing_is_left_running(result: dict[str, Any], data_dir: Path) -> None:
    assert result
    assert processes_of(data_dir) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "no/such/model"], "no model at 'no/such/model'"),
        (["--nodes", "9"], "8 blocks, too few for --nodes 9"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(tmp_path: Path, options: list[str], said: str) -> None:
    ended = demo(tmp_path, "--once", *options, "--port", str(free_port()))
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_port_in_use_is_said_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = demo(tmp_path, "--once", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "cannot listen on 127.0.0.1" in ended.stderr
    assert not (tmp_path / "logs").exists()


def test_a_node_that_dies_at_start_ends_everything_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "identities").mkdir()
    (tmp_path / "identities" / "node-2").write_bytes(b"not a key")
    ended = demo(tmp_path, "--once", "--nodes", "2", "--port", str(free_port()))
    assert ended.returncode == 1
    assert "node-2" in ended.stderr
    assert "identity" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert processes_of(tmp_path) == []


@dataclass(frozen=True)
class Standing:
    """A demo that stays up."""

    process: psutil.Popen
    directory: Path

    def screen(self) -> str:
        return (self.directory / "screen").read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 180
        while text not in self.screen():
            assert self.process.is_running(), self.screen()
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.1)

    def shown(self, pattern: str) -> str:
        found = re.search(pattern, self.screen())
        assert found, self.screen()
        return found[1]


@pytest.fixture(scope="module")
def standing(result: dict[str, Any], data_dir: Path) -> Iterator[Standing]:
    """A second run where there was one, with other options."""
    options = ("--json", "--nodes", "2", "--max-tokens", "5", "--prompt", "Hello!", "--port", str(free_port()))
    command = [sys.executable, "-m", "far_mesh.cli", "demo", "--data-dir", str(data_dir), *options]
    with (data_dir / "screen").open("wb") as screen:
        demo = Standing(psutil.Popen(command, stdout=screen, stderr=subprocess.STDOUT), data_dir)
    try:
        demo.wait_for("far-mesh generate")
        yield demo
    finally:
        demo.process.send_signal(signal.SIGINT)
        demo.process.wait(60)
        assert processes_of(data_dir) == []


def test_a_second_run_works_on_the_same_chain_and_other_options(result: dict[str, Any], standing: Standing) -> None:
    again = json.loads(standing.shown(r"(?m)^(\{.*\})$"))
    assert again["completion_tokens"] <= 5
    assert [node["blocks"] for node in again["nodes"]] == [[0, 4], [4, 8]]
    assert again["chain"]["escrow"] == result["chain"]["escrow"]


def test_it_prints_a_link_that_opens_the_playground_signed_in(standing: Standing) -> None:
    if not is_built():
        assert "make dashboard" in standing.screen()
        return
    url, token = standing.shown(r"stays up at (http://\S+)"), standing.shown(r"/playground#session=(\S+)")
    assert standing.shown(rf"({url}/playground)#")
    assert token != standing.shown(r"FAR_TOKEN=(\S+)"), "signing out in the browser leaves the terminal its own"
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{url}/api/account/balance", headers=headers).json()["available_units"] > 0


def test_the_unmodified_openai_client_talks_to_it_with_what_it_printed(standing: Standing) -> None:
    url = standing.shown(r"stays up at (http://\S+)")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=standing.shown(r"FAR_TOKEN=(\S+)"))
    messages: Any = [{"role": "user", "content": "What is the capital of Japan?"}]
    whole = client.chat.completions.create(model="far-demo", messages=messages, temperature=0, max_tokens=30)
    assert whole.choices[0].message.content == "The capital of Japan is Tokyo."
    assert whole.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(
        model="far-demo", messages=messages, temperature=0, max_tokens=30, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(pieces) == "The capital of Japan is Tokyo."
    assert len(pieces) > 3
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.chat.completions.create(model="no-such-model", messages=messages)


def test_a_swarm_keeps_answering_when_its_marketplace_is_killed(standing: Standing) -> None:
    """N7. The answer is the same as undisturbed, and the demo tells of the death and goes on."""
    bootstrap = standing.shown(r"--initial-peers (/ip4/\S+)")
    undisturbed = list(_tokens_of(_generate(bootstrap)))
    asking = _generate(bootstrap)
    tokens = _tokens_of(asking)
    begun = [next(tokens) for _ in range(10)]
    gateway = next(child for child in standing.process.children() if "serve" in child.cmdline())
    gateway.kill()
    rest = list(tokens)
    assert rest[-1]["event"] == "done"
    assert len(rest) > 40, "the marketplace should die in mid-story"
    assert [token.get("id") for token in begun + rest] == [token.get("id") for token in undisturbed]
    standing.wait_for("gateway ended by itself")
    assert standing.process.is_running()


def _generate(bootstrap: str) -> subprocess.Popen[str]:
    prompt = "Tell me a story about a brave rabbit."
    command = ["far_mesh.cli", "generate", "--json", "--model", "far-demo", "--prompt", prompt]
    return subprocess.Popen(
        [sys.executable, "-m", *command, "--initial-peers", bootstrap], stdout=subprocess.PIPE, text=True
    )


def _tokens_of(asking: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert asking.stdout is not None
    for line in asking.stdout:
        yield json.loads(line)
    assert asking.wait(60) == 0
