"""Where a model comes from, and what makes it the same model on two machines."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from far_node.blocks.source import BUNDLED_MODEL, block_count_of, bundled_model_path, find_model
from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights
from tests.support.models import make_model
from tests.support.swarm import run_python


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


class TestDigest:
    """The same weights have the same digest, other weights another."""

    def test_a_copy_under_another_name_is_the_same_model(self, model: Path, tmp_path: Path) -> None:
        copy = tmp_path / "elsewhere" / "renamed"
        shutil.copytree(model, copy)
        assert find_model(str(copy)).digest == find_model(str(model)).digest
        assert (find_model(str(copy)).id, find_model(str(model)).id) == ("renamed", "model")

    def test_one_byte_of_the_weights_makes_another_model(self, model: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        shutil.copytree(model, other)
        _flip_last_byte(other / "model.safetensors")
        assert find_model(str(other)).digest != find_model(str(model)).digest

    def test_another_config_makes_another_model(self, model: Path) -> None:
        before = find_model(str(model)).digest
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
        assert find_model(str(model)).digest != before

    def test_what_is_not_weights_does_not_count(self, model: Path) -> None:
        before = find_model(str(model)).digest
        (model / "README.md").write_text("hello")
        (model / "tokenizer_config.json").write_text("{}")
        assert find_model(str(model)).digest == before

    def test_a_file_that_changes_after_it_was_read_is_read_again(self, model: Path) -> None:
        before = find_model(str(model)).digest
        _flip_last_byte(model / "model.safetensors")
        assert find_model(str(model)).digest != before
        _flip_last_byte(model / "model.safetensors")
        assert find_model(str(model)).digest == before

    def test_a_file_that_was_replaced_by_one_as_long_and_as_old_is_read_again(
        self, model: Path, tmp_path: Path
    ) -> None:
        weights = model / "model.safetensors"
        before, status = find_model(str(model)).digest, weights.stat()
        fresh = tmp_path / "fresh"
        shutil.copy(weights, fresh)
        _flip_last_byte(fresh)
        os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
        fresh.replace(weights)
        assert weights.stat().st_mtime_ns == status.st_mtime_ns
        assert find_model(str(model)).digest != before

    def test_a_file_is_read_once(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = find_model(str(model)).digest

        def refuse(*_: Any) -> None:
            raise AssertionError("the weights are read a second time")

        monkeypatch.setattr(hashlib, "file_digest", refuse)
        assert find_model(str(model)).digest == first

    @pytest.mark.parametrize("content", ["", "not json", "[]", "null", '{"a": 1}'])
    def test_a_damaged_cache_only_costs_time(self, model: Path, far_cache: Path, content: str) -> None:
        first = find_model(str(model)).digest
        (far_cache / "digests.json").write_text(content)
        assert find_model(str(model)).digest == first

    def test_a_cache_that_cannot_be_written_only_costs_time(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("FAR_CACHE_DIR", str(tmp_path / "file"))
        assert len(find_model(str(model)).digest) == 64


def _flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


class TestFinding:
    """A directory, a bundled name, a hub id; and nothing else."""

    def test_the_bundled_model_is_found_by_its_name(self) -> None:
        source = find_model(BUNDLED_MODEL)
        assert (source.id, source.path) == (BUNDLED_MODEL, bundled_model_path())
        assert source.digest == find_model(str(bundled_model_path())).digest

    def test_the_public_name_can_be_chosen(self, model: Path) -> None:
        assert find_model(str(model), "our/model").id == "our/model"

    @pytest.mark.parametrize(
        "name", ["", ".", "no-such-model", "/no/such/dir", "./no", "~/no/such", "a/b/c", "far-demo2"]
    )
    def test_what_is_no_model_is_not_found(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelNotFound) as failure:
            find_model(name)
        assert (failure.value.code, failure.value.status) == ("model_unavailable", 404)

    def test_a_directory_without_a_config_is_no_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match=r"no config\.json"):
            find_model(str(tmp_path))

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt", "tf_model.h5"])
    def test_weights_that_could_run_code_are_refused_by_name(self, model: Path, name: str) -> None:
        (model / "model.safetensors").rename(model / name)
        with pytest.raises(UnsafeWeights, match=f"found {name}, which can run code") as failure:
            find_model(str(model))
        assert failure.value.code == "unsafe_weights"

    def test_a_model_without_weights_is_refused(self, model: Path) -> None:
        (model / "model.safetensors").unlink()
        with pytest.raises(UnsafeWeights, match=r"holds no \.safetensors file"):
            find_model(str(model))

    def test_a_hub_that_cannot_be_reached_is_said_in_one_line(self) -> None:
        with pytest.raises(ModelNotFound, match="'nobody/nothing' is neither a directory nor a model") as failure:
            find_model("nobody/nothing")
        assert "\n" not in failure.value.message


class TestBlockCount:
    """Read from config.json alone."""

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "opt", "falcon"])
    def test_every_name_for_it_is_known(self, tmp_path: Path, kind: str) -> None:
        assert block_count_of(find_model(str(make_model(tmp_path / kind, kind)))) == 6

    @pytest.mark.parametrize("config", ["{}", "[]", "not json", '{"num_hidden_layers": "many"}', '{"text_config": 5}'])
    def test_a_config_that_does_not_say_is_refused(self, model: Path, config: str) -> None:
        source = find_model(str(model))
        (model / "config.json").write_text(config)
        with pytest.raises(ModelUnsupported, match="does not say how many layers"):
            block_count_of(source)


class _Hub(BaseHTTPRequestHandler):
    """Speaks as much of the hub's API as a download of one model needs."""

    repository, commit = "far/tiny", "0" * 39 + "1"

    def __init__(self, directory: Path, asked: list[str], *args: Any) -> None:
        self.directory, self.asked = directory, asked
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        file = self.directory / path.rpartition("/")[2]
        if path.startswith(f"/api/models/{self.repository}"):
            about: object = self._files() if "/tree/" in path else self._about()
            self._send(json.dumps(about).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith(f"/{self.repository}/resolve/") and file.is_file():
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": self.commit}
            self._send(data, headers, body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _about(self) -> dict[str, Any]:
        files = [{"rfilename": file["path"]} for file in self._files()]
        return {"id": self.repository, "modelId": self.repository, "sha": self.commit, "siblings": files}

    def _files(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
            for file in sorted(self.directory.iterdir())
        ]

    def _send(self, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(200)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(model: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub on this machine, and what it was asked for."""
    (model / "pytorch_model.bin").write_bytes(b"code that must not be fetched")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Hub, model, asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


_FIND = """
import sys
from discovery.protocol.errors import FarError
from far_node.blocks.source import find_model
try:
    found = find_model(sys.argv[1])
    print(found.id, found.digest)
except FarError as error:
    print(error.code, error.message)
"""


class TestHub:
    """A hub id is fetched; in a process of its own, for the hub's client reads its settings when it is imported."""

    def find(self, endpoint: str, repository: str, home: Path) -> str:
        ended = run_python(_FIND, repository, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", HF_HOME=str(home))
        assert ended.status == 0, ended.err
        return ended.out.strip()

    def test_a_hub_id_is_the_same_model_as_the_directory(
        self, hub: tuple[str, list[str]], model: Path, tmp_path: Path
    ) -> None:
        endpoint, asked = hub
        out = self.find(endpoint, _Hub.repository, tmp_path / "home")
        assert out == f"{_Hub.repository} {find_model(str(model)).digest}"
        assert not [path for path in asked if path.endswith(".bin")], "what could run code is not even fetched"

    def test_a_hub_id_that_the_hub_does_not_know_is_not_found(self, hub: tuple[str, list[str]], tmp_path: Path) -> None:
        out = self.find(hub[0], "nobody/nothing", tmp_path / "home")
        assert out.startswith(
            "model_unavailable 'nobody/nothing' is neither a directory nor a model that the hub gives us"
        )
