"""The registry over HTTP: whole files and ranges, what it says of models, and what only its operator may ask for."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load, save_file

from discovery.protocol.errors import InvalidArgument
from discovery.registry import ranges
from discovery.registry.app import parse_model
from discovery.registry.manifest import read_manifest
from discovery.registry.ranges import range_of
from discovery.web.server import listening
from far_node.blocks.source import find_model
from far_node.models.part import Part
from tests.support.models import BLOCKS, make_model
from tests.support.registry import Registry, a_registry

TOKEN = "the operator's own"
LAYER = "layer-00002.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_model(tmp_path_factory.mktemp("models") / "tiny")
    (path / "pytorch_model.bin").write_bytes(b"code")
    (path / "notes.md").write_text("mine")
    return path


@pytest.fixture(scope="module")
def registry(model: Path) -> Iterator[Registry]:
    with a_registry({"far/tiny": model}, TOKEN) as running:
        yield running


@pytest.fixture
def client(registry: Registry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{registry.url}/models/") as opened:
        yield opened


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return str(error["message"])


class TestReading:
    """Open to everybody."""

    def test_the_manifest_names_every_file_with_its_hash(self, client: httpx.Client, model: Path) -> None:
        manifest = read_manifest(client.get("far/tiny/manifest").content)
        assert manifest.digest == find_model(str(model)).digest
        assert (manifest.block_count, manifest.layer_prefix) == (BLOCKS, "model.layers.")
        assert [entry.name for entry in manifest.weights] == ["model.safetensors"]
        assert {entry.name for entry in manifest.files} == {"config.json", "generation_config.json"}
        for entry in (*manifest.files, *manifest.shards):
            content = client.get(f"far/tiny/files/{entry.name}").content
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)

    def test_a_layer_is_a_safetensors_file_of_its_own(self, client: httpx.Client) -> None:
        tensors = load(client.get(f"far/tiny/files/{LAYER}").content)
        assert tensors
        assert all(name.startswith("model.layers.2.") for name in tensors)

    def test_the_status_of_all_and_of_one(self, client: httpx.Client, model: Path) -> None:
        (status,) = client.get("status").json()["models"]
        assert client.get("status", params={"model_id": "far/tiny"}).json() == {"models": [status]}
        assert (status["model_id"], status["state"], status["block_count"]) == ("far/tiny", "ready", BLOCKS)
        assert status["digest"] == find_model(str(model)).digest
        assert status["done_bytes"] == status["total_bytes"] > status["size_bytes"] > 0
        assert status["error"] is None

    def test_the_size_alone_by_head(self, client: httpx.Client) -> None:
        whole, head = client.get(f"far/tiny/files/{LAYER}"), client.head(f"far/tiny/files/{LAYER}")
        assert head.content == b""
        for name in ("content-length", "etag", "accept-ranges"):
            assert head.headers[name] == whole.headers[name]
        assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'

    @pytest.mark.parametrize(
        "name",
        [
            "pytorch_model.bin",
            "notes.md",
            "model.safetensors",
            "layer-00006.safetensors",
            "far-model.json",
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e",
            "..",
            "layer-00002.safetensors%00",
            "",
        ],
    )
    def test_only_files_of_the_manifest_are_there(self, client: httpx.Client, name: str) -> None:
        refused(client.get(f"far/tiny/files/{name}"), 404, "model_not_served")

    @pytest.mark.parametrize("path", ["other/manifest", "far/manifest", "../etc/manifest", "manifest", "far/tiny", ""])
    def test_other_models_are_not(self, client: httpx.Client, path: str) -> None:
        refused(client.get(path), 404, "model_not_served")

    def test_nor_is_their_status(self, client: httpx.Client) -> None:
        refused(client.get("status", params={"model_id": "other"}), 404, "model_not_served")
        refused(client.get("status", params={"model_id": "x" * 1000}), 400, "invalid_argument")


class TestRanges:
    """Bytes from any place on, so that a download goes on after a cut."""

    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-", (0, 100)),
            ("bytes=10-", (10, 100)),
            ("bytes=10-19", (10, 20)),
            ("bytes=99-", (99, 100)),
            ("bytes=0-1000", (0, 100)),
            ("bytes=-30", (70, 100)),
            ("bytes=-1000", (0, 100)),
            ("bytes=20-10", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes=0-1,5-6", None),
            ("bytes=a-b", None),
            ("lines=0-1", None),
            ("bytes=" + "9" * 400 + "-", None),
            ("bytes=٠-", None),
            (None, None),
        ],
    )
    def test_which_bytes_a_header_means(self, header: str | None, expected: tuple[int, int] | None) -> None:
        assert range_of(header, 100) == expected

    @pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
    def test_a_range_beyond_the_end(self, header: str) -> None:
        with pytest.raises(ValueError, match="beyond the end"):
            range_of(header, 100)

    def test_a_range_is_sent_and_named(self, client: httpx.Client) -> None:
        whole = client.get(f"far/tiny/files/{LAYER}").content
        part = client.get(f"far/tiny/files/{LAYER}", headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, whole[1000:2000])
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole)}"

    def test_a_range_beyond_the_end_has_an_answer_of_its_own(self, client: httpx.Client) -> None:
        answer = client.get(f"far/tiny/files/{LAYER}", headers={"Range": "bytes=999999999-"})
        size = client.head(f"far/tiny/files/{LAYER}").headers["content-length"]
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")

    def test_what_is_known_is_not_sent_again(self, client: httpx.Client) -> None:
        tag = client.head(f"far/tiny/files/{LAYER}").headers["etag"]
        answer = client.get(f"far/tiny/files/{LAYER}", headers={"If-None-Match": f'"other", {tag}'})
        assert (answer.status_code, answer.content) == (304, b"")

    def test_a_range_of_another_file_is_answered_with_the_whole(self, client: httpx.Client) -> None:
        tag = client.head(f"far/tiny/files/{LAYER}").headers["etag"]
        for known, status in ((tag, 206), ('"another"', 200)):
            asked = {"Range": "bytes=1000-", "If-Range": known}
            assert client.get(f"far/tiny/files/{LAYER}", headers=asked).status_code == status


class TestOperator:
    """``POST /models/shard`` is for whoever has the token that the registry was started with."""

    def shard(self, client: httpx.Client, token: str | None, body: Any = None) -> httpx.Response:
        headers = {"Authorization": token} if token is not None else {}
        content = json.dumps({"model_id": "far/tiny"} if body is None else body)
        return client.post("shard", content=content, headers=headers)

    @pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
    def test_without_the_token_it_is_refused(self, client: httpx.Client, token: str | None) -> None:
        refused(self.shard(client, token), 403, "operator_only")

    def test_a_registry_without_a_token_refuses_everybody(self, model: Path) -> None:
        with a_registry({"tiny": model}) as registry, httpx.Client(base_url=f"{registry.url}/models/") as client:
            for token in (None, "Bearer", "Bearer None", "Bearer x"):
                message = refused(self.shard(client, token, {"model_id": "tiny"}), 403, "operator_only")
                assert "started without a token" in message

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({}, "model_id: Field required"),
            ({"model_id": 7}, "model_id: Input should be a valid string"),
            ({"model_id": "x", "more": 1}, "more: Extra inputs"),
            ([], "the body: Input should be an object"),
            ("x" * 5000, "the body is longer than 4096 bytes"),
        ],
    )
    def test_a_request_that_means_nothing(self, client: httpx.Client, body: Any, words: str) -> None:
        assert words in refused(self.shard(client, f"Bearer {TOKEN}", body), 400, "invalid_argument")

    def test_a_model_that_is_not_here(self, client: httpx.Client) -> None:
        refused(self.shard(client, f"Bearer {TOKEN}", {"model_id": "other"}), 404, "model_not_served")

    def test_a_model_that_was_changed_is_cut_anew(self, tmp_path: Path) -> None:
        model = make_model(tmp_path / "tiny")
        with (
            a_registry({"far/tiny": model}, TOKEN) as registry,
            httpx.Client(base_url=f"{registry.url}/models/") as client,
        ):
            before = read_manifest(client.get("far/tiny/manifest").content)
            weights = (model / "model.safetensors").read_bytes()
            (model / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
            message = refused(client.get(f"far/tiny/files/{LAYER}"), 503, "model_not_prepared")
            assert "its operator must shard it again" in message
            assert self.shard(client, f"Bearer {TOKEN}").status_code == 202
            after = self.wait(client)
            assert after["digest"] == find_model(str(model)).digest != before.digest

    def test_a_model_that_cannot_be_used_says_why_and_is_mended(self, tmp_path: Path) -> None:
        model = make_model(tmp_path / "tiny")
        weights = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(weights[:1000])
        with (
            a_registry({"far/tiny": model}, TOKEN) as registry,
            httpx.Client(base_url=f"{registry.url}/models/") as client,
        ):
            (status,) = client.get("status").json()["models"]
            assert status["state"] == "failed"
            assert "is not a well-formed safetensors file" in status["error"]
            answer = client.get("far/tiny/manifest")
            assert "is not a well-formed safetensors file" in refused(answer, 503, "model_not_prepared")
            assert answer.headers["retry-after"] == "60"
            (model / "model.safetensors").write_bytes(weights)
            self.shard(client, f"Bearer {TOKEN}")
            assert self.wait(client)["state"] == "ready"

    @staticmethod
    def wait(client: httpx.Client) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            status: dict[str, Any] = client.get("status").json()["models"][0]
            if status["state"] in ("ready", "failed"):
                return status
            time.sleep(0.02)
        raise AssertionError(status)


class TestMirror:
    """A model that was pulled by layers can be handed on, and is still the same model."""

    def test_the_second_hand_has_the_digest_of_the_first(self, registry: Registry, model: Path) -> None:
        pulled = find_model("far/tiny", registry=registry.url)
        assert not (pulled.path / "model.safetensors").exists()
        with a_registry({"far/tiny": pulled.path}) as mirror:
            answer = httpx.get(f"{mirror.url}/models/far/tiny/manifest")
            first = read_manifest(httpx.get(f"{registry.url}/models/far/tiny/manifest").content)
            second = read_manifest(answer.content)
        assert second.digest == first.digest == find_model(str(model)).digest
        assert second.shards == first.shards, "cut in the same way"

    def test_a_model_that_is_here_in_part_cannot_be(self, registry: Registry) -> None:
        pulled = find_model("far/tiny", part=Part(1, 2), registry=registry.url)
        with a_registry({"far/tiny": pulled.path}) as mirror:
            (status,) = httpx.get(f"{mirror.url}/models/status").json()["models"]
        assert status["state"] == "failed"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Its ends are larger than all that may lie in buffers between two ends of a connection."""
    model = tmp_path_factory.mktemp("models") / "large"
    model.mkdir()
    (model / "config.json").write_text('{"num_hidden_layers": 1}')
    weights = {"layers.0.weight": torch.zeros(1), "embed.weight": torch.zeros(25_000_000)}
    save_file(weights, model / "model.safetensors")
    with a_registry({"large": model}) as running:
        yield running


class TestStrangers:
    """Who asks and never reads, or asks and leaves, costs nothing for long."""

    def ask(self, registry: Registry) -> socket.socket:
        url = httpx.URL(registry.url)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((url.host, url.port))
        connection.sendall(b"GET /models/large/files/ends.safetensors HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection

    def test_who_never_reads_is_let_go(self, large: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranges, "STALL_SECONDS", 0.1)
        size = int(httpx.head(f"{large.url}/models/large/files/ends.safetensors").headers["content-length"])
        with self.ask(large) as connection:
            time.sleep(1.0)
            connection.settimeout(20)
            received = 0
            while piece := connection.recv(1 << 20):
                received += len(piece)
        assert 0 < received < size

    def test_who_leaves_is_not_sent_the_rest(self, large: Registry) -> None:
        large.sent.clear()
        with self.ask(large) as connection:
            connection.recv(10)
        time.sleep(0.5)
        size = int(httpx.head(f"{large.url}/models/large/files/ends.safetensors").headers["content-length"])
        assert large.sent["ends.safetensors"] < size / 2
        assert httpx.get(f"{large.url}/models/status").status_code == 200


class TestModelOption:
    """``--model DIR`` or ``--model ID=DIR``."""

    def test_the_directory_names_the_model_unless_told(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert parse_model(str(model)) == ("tiny", model)
        assert parse_model(f"far/other={model}") == ("far/other", model)
        monkeypatch.chdir(model)
        assert parse_model(".") == ("tiny", model)

    def test_a_directory_with_that_sign_in_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "a=b").mkdir()
        with pytest.raises(InvalidArgument, match="'a=b' is no name of a model; give one with ID=DIR"):
            parse_model(str(tmp_path / "a=b"))
        assert parse_model(f"ours={tmp_path / 'a=b'}") == ("ours", tmp_path / "a=b")

    @pytest.mark.parametrize("text", ["", "/no/such", "x=/no/such", "x="])
    def test_a_directory_that_is_not_there(self, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InvalidArgument):
            parse_model(text)

    @pytest.mark.parametrize("name", ["a/b/c", "../x", "a b", "-x", "m" * 300])
    def test_a_name_that_is_none(self, model: Path, name: str) -> None:
        with pytest.raises(InvalidArgument, match="is no name of a model"):
            parse_model(f"{name}={model}")


def test_a_port_that_is_in_use_is_said() -> None:
    with listening("127.0.0.1", 0) as door, pytest.raises(InvalidArgument, match="cannot listen on"):
        listening("127.0.0.1", door.getsockname()[1])


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(InvalidArgument, match="cannot listen on"):
        listening("no-such-host.invalid", 0)
