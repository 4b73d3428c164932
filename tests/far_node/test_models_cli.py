"""``far-node models``: each command says what it did, to people and to programs, or in one sentence why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import far_node.cli
from far_node import models_cli
from far_node.blocks.source import find_model
from far_node.models.store import ModelStore
from tests.support.models import make_model
from tests.support.registry import a_registry
from tests.support.swarm import Ended, run_here


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets up the logs of its process, which here is that of all tests."""
    monkeypatch.setattr(models_cli, "quiet_libraries", lambda: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def models(*arguments: str) -> Ended:
    return run_here(far_node.cli.app, "models", *arguments)


def done(*arguments: str) -> Ended:
    ended = models(*arguments)
    assert (ended.status, ended.err) == (0, ""), ended
    return ended


def refused(code: str, words: str, *arguments: str) -> None:
    plain = models(*arguments)
    assert plain.status == 1, plain
    (line,) = plain.err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    told = models(*arguments, "--json")
    assert (told.status, told.err) == (1, "")
    assert (told.events[-1]["event"], told.events[-1]["code"]) == ("error", code)


class TestPull:
    """From a registry; a hub is pulled from in the tests of what pulls."""

    def test_some_blocks(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            ended = done("pull", "far/tiny", "--blocks", "1:3", "--registry", registry.url)
        assert ended.out.startswith("far/tiny: blocks 1:3 of 6, ")
        assert done("pull", "far/tiny", "--blocks", "2:3", "--json").events[-1]["blocks"] == [[1, 3]]

    def test_the_ends_with_blocks_or_alone(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            assert done("pull", "far/tiny", "--ends", "--registry", registry.url).out.startswith("far/tiny: the ends, ")
            both = done("pull", "far/tiny", "--ends", "--blocks", "0:1").out
            assert both.startswith("far/tiny: blocks 0:1 of 6 and the ends, ")
            assert done("pull", "far/tiny").out.startswith("far/tiny: all 6 blocks, ")

    def test_events_tell_how_far_it_is(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            events = done("pull", "far/tiny", "--registry", registry.url, "--json").events
        assert {event["event"] for event in events} == {"pulling", "pulled"}
        assert events[-2]["done_bytes"] == events[-2]["total_bytes"]
        assert events[-1]["digest"] == find_model(str(model)).digest

    def test_into_another_directory_with_a_limit(self, model: Path, tmp_path: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            place = ["--registry", registry.url, "--models-dir", str(tmp_path / "here")]
            refused("no_space", "larger than the size limit", "pull", "far/tiny", *place, "--max-size", "1KB")
            done("pull", "far/tiny", *place, "--max-size", "1MB")
        assert (tmp_path / "here" / "far--tiny" / "far-model.json").is_file()
        assert ModelStore().records() == {}

    def test_under_another_name(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            done("pull", "mine", "--from", "far/tiny", "--blocks", "0:1", "--registry", registry.url)
        assert list(ModelStore().records()) == ["mine"]

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["far/tiny", "--blocks", "3"], "invalid_argument", "is not a range a:b"),
            (["far/tiny", "--blocks", "3:3"], "invalid_argument", "is not a range a:b"),
            (["far/tiny", "--registry", "nonsense"], "invalid_argument", "is no address"),
            (["far/tiny", "--registry", "http://127.0.0.1:1"], "download_failed", "cannot be read"),
            (["far/tiny", "--max-size", "huge"], "invalid_argument", "is no size"),
            (["far/tiny", "--file", "x.bin"], "unsafe_weights", "can run code"),
            (["far/tiny", "--file", "x.gguf", "--blocks", "0:1"], "invalid_argument", "--file is a whole model"),
            (["far/tiny"], "model_unavailable", "neither a directory nor a model that the hub gives us"),
            (["../x"], "invalid_argument", "is no name for a model"),
            (["far-demo"], "invalid_argument", "comes with the package"),
        ],
    )
    def test_what_cannot_be(self, arguments: list[str], code: str, words: str) -> None:
        refused(code, words, "pull", *arguments)

    def test_blocks_that_the_model_does_not_have(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            refused(
                "invalid_argument",
                "blocks 4:7 are not within this model's 0:6",
                *("pull", "far/tiny", "--blocks", "4:7", "--registry", registry.url),
            )


class TestAddAndRemove:
    """What comes from this disk, and what goes."""

    def test_a_directory(self, model: Path) -> None:
        assert done("add", "ours", str(model)).out.startswith("ours: all 6 blocks, ")
        assert done("remove", "ours").out.startswith("ours is gone: ")
        assert ModelStore().records() == {}

    def test_a_linked_directory(self, model: Path) -> None:
        assert done("add", "ours", str(model), "--link").out == f"ours: all 6 blocks, stays in {model}\n"
        assert done("remove", "ours").out == f"ours is gone: its files stay in {model}\n"
        assert (model / "config.json").is_file()

    def test_events(self, model: Path) -> None:
        events = done("add", "ours", str(model), "--json").events
        assert {event["event"] for event in events} == {"verifying", "copying", "added"}
        (removed,) = done("remove", "ours", "--json").events
        assert (removed["event"], removed["name"]) == ("removed", "ours")
        assert removed["freed_bytes"] == events[-1]["size_bytes"]

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["ours", "/no/such.gguf"], "model_unavailable", "there is no file or directory"),
            (["ours", "/no/such"], "unsafe_weights", "neither a GGUF file nor a model directory"),
            (["ours", "http://127.0.0.1:1/x.bin"], "unsafe_weights", "can run code"),
            (["ours", "http://127.0.0.1:1/x.gguf"], "download_failed", "cannot be read"),
            (["ours", "/no/such.gguf", "--sha256", "x"], "invalid_argument", "64 hexadecimal digits"),
            (["far-demo", "/no/such"], "invalid_argument", "comes with the package"),
        ],
    )
    def test_what_cannot_be_added(self, arguments: list[str], code: str, words: str) -> None:
        refused(code, words, "add", *arguments)

    def test_what_cannot_be_removed(self, model: Path) -> None:
        refused("model_unavailable", "there is no model 'ours'", "remove", "ours")
        done("add", "ours", str(model))
        store = ModelStore()
        store.use("ours")
        refused("model_in_use", "in use by a running process", "remove", "ours")
        store.release("ours")


class TestListAndInfo:
    """What is here."""

    def test_an_empty_directory(self) -> None:
        assert "0 models" in done("list").out
        (event,) = done("list", "--json").events
        assert (event["event"], event["count"], event["used_bytes"]) == ("models", 0, 0)

    def test_every_model_has_a_line(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAR_MODELS_MAX_SIZE", "5GB")
        (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(10))
        done("add", "far/ours", str(model))
        done("add", "linked", str(model), "--link")
        done("add", "file", str(tmp_path / "x.gguf"))
        lines = done("list").out.splitlines()
        assert lines[0].split() == ["name", "here", "size", "from", "digest", "last", "used"]
        assert [line.split()[0] for line in lines[1:4]] == ["far/ours", "file", "linked"]
        assert find_model(str(model)).digest[:12] in lines[1]
        assert "all 6 blocks" in lines[1]
        assert "linked" in lines[3]
        assert lines[4].startswith("3 models, ")
        assert lines[4].endswith("of 5.0 GB")
        events = done("list", "--json").events
        assert [event.get("name") for event in events] == ["far/ours", "file", "linked", None]
        assert events[0]["blocks"] == [[0, 6]]
        assert events[3]["max_bytes"] == 5 * 10**9

    def test_info_tells_of_each_block(self, model: Path) -> None:
        done("add", "ours", str(model))
        told = done("info", "ours").out
        for words in ("LlamaForCausalLM, 6 blocks, context 256", find_model(str(model)).digest, "each of 0:6", "nf4"):
            assert words in told
        event = done("info", "ours", "--json").events[-1]
        assert (event["event"], event["name"], event["digest"]) == ("info", "ours", find_model(str(model)).digest)
        assert [block["number"] for block in event["blocks"]] == list(range(6))
        assert set(event["blocks"][0]["memory"]) == {"float32", "bfloat16", "int8", "nf4"}
        assert event["record"]["name"] == "ours"

    def test_info_of_what_is_not_in_the_store(self, model: Path, tmp_path: Path) -> None:
        assert "8 blocks" in done("info", "far-demo").out
        assert json.loads(done("info", str(model), "--json").out.splitlines()[-1])["record"] is None
        (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(10))
        done("add", "file", str(tmp_path / "x.gguf"))
        assert "x.gguf" in done("info", "file").out
        refused("model_unavailable", "far-node models pull far/other brings it", "info", "far/other")

    def test_a_damaged_registry_file_is_said(self, model: Path) -> None:
        done("add", "ours", str(model))
        (ModelStore().directory / "models.json").write_text("{")
        for command in (["list"], ["info", "ours"], ["remove", "ours"], ["add", "more", str(model)]):
            refused("invalid_argument", "models.json cannot be read", *command)


@pytest.mark.parametrize("arguments", [[], ["pull"], ["add", "x"], ["remove"], ["info"], ["list", "x"], ["drop", "x"]])
def test_a_usage_error_has_exit_code_2(arguments: list[str]) -> None:
    ended = models(*arguments)
    assert ended.status == 2
    assert "Usage" in ended.out + ended.err
