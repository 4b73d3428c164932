"""Where a model comes from, and what makes it the same model on two machines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry import hashes
from far_node.blocks.load import load_blocks, load_client_model
from far_node.blocks.source import BUNDLED_MODEL, block_count_of, bundled_model_path, find_model, release_model
from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights
from far_node.models.add import add
from far_node.models.errors import ModelInUse
from far_node.models.part import ENDS, Part
from far_node.models.store import ModelStore
from tests.support.models import BLOCKS, KINDS, make_model, make_sharded_model
from tests.support.registry import a_registry
from tests.support.swarm import COMMAND_SECONDS, run_python
from tests.support.web import COMMIT, Hub, a_hub


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

        monkeypatch.setattr(hashes, "_hash", refuse)
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
        "name",
        [
            "",
            ".",
            "no-such-model",
            "/no/such/dir",
            "./no",
            "~/no/such",
            "a/b/c",
            "far-demo2",
            "m" * 300,
            "a\0b",
            "../x/y",
        ],
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


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in many files, as large ones are published."""
    return make_sharded_model(tmp_path / "sharded")


@pytest.fixture
def hub(sharded: Path) -> Iterator[Hub]:
    """A hub on this machine, which has weights in a format that can run code, too."""
    (sharded / "pytorch_model.bin").write_bytes(b"code that must not be fetched")
    with a_hub(sharded) as running:
        yield running


_FIND = """
import dataclasses, json, sys
from discovery.protocol.errors import FarError
from far_node.blocks.source import find_model
from far_node.models.part import Part
part = json.loads(sys.argv[2])
try:
    found = find_model(sys.argv[1], part=None if part is None else Part(*part))
    print(json.dumps({"id": found.id, "digest": found.digest, "path": str(found.path), "stored": found.stored_as}))
except FarError as error:
    print(json.dumps({"code": error.code, "message": error.message}))
"""

Asked = tuple[int, int, bool] | None


def find(endpoint: str, repository: str, home: Path, part: Asked = None, **environment: str) -> dict[str, str]:
    """In a process of its own, for the hub's client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)} | environment
    ended = run_python(_FIND, repository, json.dumps(part), timeout=COMMAND_SECONDS, **settings)
    assert ended.status == 0, ended.err
    told: dict[str, str] = json.loads(ended.out)
    return told


class TestHub:
    """A hub id is fetched, as far as it is needed."""

    def test_a_hub_id_is_the_same_model_as_the_directory(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        told = find(hub.url, hub.repository, tmp_path / "home")
        assert (told["id"], told["stored"]) == (hub.repository, hub.repository)
        assert told["digest"] == find_model(str(sharded)).digest
        assert "pytorch_model.bin" not in hub.files_asked(), "what could run code is not even fetched"
        assert len(hub.sent) == len(list(sharded.glob("*.json"))) + len(list(sharded.glob("*.safetensors")))

    @pytest.mark.parametrize("part", [(1, 3, False), (0, 1, True), (0, 0, True), (0, 0, False)])
    def test_only_the_files_of_the_wanted_part_are_fetched(
        self, hub: Hub, sharded: Path, tmp_path: Path, part: tuple[int, int, bool]
    ) -> None:
        first, end, ends = part
        weight_map = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
        layers = [f"model.layers.{number}." for number in range(BLOCKS)]
        needed = {
            file
            for name, file in weight_map.items()
            if name.startswith(tuple(layers[first:end])) or (ends and not name.startswith(tuple(layers)))
        }
        assert len(needed) < len(set(weight_map.values()))
        told = find(hub.url, hub.repository, tmp_path / "home", part)
        assert {name for name in hub.sent if name.endswith(".safetensors")} == needed
        assert told["digest"] == find_model(str(sharded)).digest, "though most of its files are not here"
        for name in needed:
            assert hub.sent[name] == (sharded / name).stat().st_size

    def test_blocks_load_from_their_files_alone(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        source = find(hub.url, hub.repository, tmp_path / "home", (2, 4, False))
        path = Path(source["path"])
        assert len(list(path.glob("*.safetensors"))) < len(list(sharded.glob("*.safetensors")))
        mine = load_blocks(find_model(str(path), part=Part(2, 4)), 2, 4)
        whole = load_blocks(find_model(str(sharded)), 2, 4)
        hidden = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(mine.run(hidden, mine.new_cache(), 2, 4), whole.run(hidden, whole.new_cache(), 2, 4))

    def test_a_client_loads_from_the_files_of_the_ends_alone(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        path = find(hub.url, hub.repository, tmp_path / "home", (0, 0, True))["path"]
        mine = load_client_model(find_model(path, part=ENDS)).state_dict()
        whole = load_client_model(find_model(str(sharded))).state_dict()
        assert all(torch.equal(mine[name], whole[name]) for name in whole)

    def test_more_of_it_is_fetched_when_more_is_wanted(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        find(hub.url, hub.repository, tmp_path / "home", (0, 2, False))
        before = dict(hub.sent)
        find(hub.url, hub.repository, tmp_path / "home", (1, 3, False))
        assert {name: count for name, count in hub.sent.items() if name in before} == before, "nothing is fetched twice"
        assert len(hub.sent) > len(before)

    def test_what_is_here_is_found_without_the_hub(self, hub: Hub, tmp_path: Path) -> None:
        find(hub.url, hub.repository, tmp_path / "home", (0, 2, False))
        hub.asked.clear()
        told = find("http://127.0.0.1:9", hub.repository, tmp_path / "home", (1, 2, False))
        assert told["stored"] == hub.repository
        assert hub.asked == []

    def test_offline_nothing_more_is_fetched(self, hub: Hub, tmp_path: Path) -> None:
        find(hub.url, hub.repository, tmp_path / "home", (0, 2, False))
        hub.asked.clear()
        told = find(hub.url, hub.repository, tmp_path / "home", (0, 6, False), HF_HUB_OFFLINE="1")
        assert (told["code"], hub.asked) == ("download_failed", [])
        assert "HF_HUB_OFFLINE forbids" in told["message"]

    def test_blocks_that_the_model_does_not_have_are_refused_before_weights_are_fetched(
        self, hub: Hub, tmp_path: Path
    ) -> None:
        told = find(hub.url, hub.repository, tmp_path / "home", (0, 7, False))
        assert told == {"code": "invalid_argument", "message": "blocks 0:7 are not within this model's 0:6"}
        assert not [name for name in hub.sent if name.endswith(".safetensors")]

    def test_what_the_hubs_own_client_has_is_not_fetched_again(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        snapshot = self.cache(hub, sharded, tmp_path / "home")
        assert (snapshot / "model-00001-of-00017.safetensors").is_file()
        told = find(hub.url, hub.repository, tmp_path / "home", (0, 2, False))
        assert not [name for name in hub.sent if name.endswith(".safetensors")]
        assert told["digest"] == find_model(str(sharded)).digest

    def test_without_the_hub_its_clients_cache_will_do(self, hub: Hub, sharded: Path, tmp_path: Path) -> None:
        snapshot = self.cache(hub, sharded, tmp_path / "home")
        told = find("http://127.0.0.1:9", hub.repository, tmp_path / "home", None, HF_HUB_OFFLINE="1")
        assert (told["path"], told["digest"]) == (str(snapshot), find_model(str(sharded)).digest)

    def test_a_hub_id_that_the_hub_does_not_know_is_not_found(self, hub: Hub, tmp_path: Path) -> None:
        told = find(hub.url, "nobody/nothing", tmp_path / "home")
        assert told["code"] == "model_unavailable"
        assert told["message"].startswith("'nobody/nothing' is neither a directory nor a model that the hub gives us")

    @staticmethod
    def cache(hub: Hub, sharded: Path, home: Path) -> Path:
        """Lay the files where the hub's client would: content by its hash, and a link for each name."""
        root = home / "hub" / f"models--{hub.repository.replace('/', '--')}"
        snapshot, blobs = root / "snapshots" / COMMIT, root / "blobs"
        for directory in (snapshot, blobs, root / "refs"):
            directory.mkdir(parents=True)
        (root / "refs" / "main").write_text(COMMIT)
        for file in sharded.iterdir():
            blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
        return snapshot


class TestStore:
    """A model of the models directory is found by its name."""

    def test_a_model_that_was_added_is_found(self, model: Path) -> None:
        add(ModelStore(), "ours", str(model))
        source = find_model("ours")
        assert (source.id, source.digest, source.stored_as) == ("ours", find_model(str(model)).digest, "ours")
        assert find_model("ours", "public/name").id == "public/name"

    def test_a_linked_model_is_used_where_it_lies(self, model: Path) -> None:
        add(ModelStore(), "ours", str(model), link=True)
        assert find_model("ours").path == model

    def test_a_linked_model_that_was_changed_is_another(self, model: Path) -> None:
        add(ModelStore(), "ours", str(model), link=True)
        _flip_last_byte(model / "model.safetensors")
        with pytest.raises(WeightsDamaged, match="was changed since it was added"):
            find_model("ours")
        assert (model / "model.safetensors").is_file(), "the owner's files are left alone"

    def test_a_model_in_use_stays_until_it_is_released(self, model: Path) -> None:
        store = ModelStore()
        add(store, "ours", str(model))
        source = find_model("ours")
        with pytest.raises(ModelInUse, match="in use by a running process"):
            store.remove("ours")
        release_model(source)
        store.remove("ours")
        assert not store.folder_of("ours").exists()

    def test_a_damaged_file_is_deleted_and_named(self, model: Path) -> None:
        add(ModelStore(), "ours", str(model))
        path = ModelStore().folder_of("ours") / "model.safetensors"
        _flip_last_byte(path)
        with pytest.raises(WeightsDamaged, match=r"model\.safetensors is not what its manifest says; it was deleted"):
            find_model("ours")
        assert not path.exists()

    def test_what_is_missing_of_a_model_that_was_added_cannot_be_pulled(self, model: Path) -> None:
        add(ModelStore(), "ours", str(model))
        (ModelStore().folder_of("ours") / "model.safetensors").unlink()
        with pytest.raises(InvalidArgument, match="was added from"):
            find_model("ours")

    def test_a_model_that_was_not_found_leaves_nothing_behind(self, models_directory: Path) -> None:
        for name in ("no-such-model", "nobody/nothing"):
            with pytest.raises(ModelNotFound):
                find_model(name)
        assert [path.name for path in models_directory.iterdir()] == [".locks"]


class TestRegistry:
    """A node downloads its blocks from a machine that has the model."""

    def test_only_the_wanted_blocks_are_sent(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            source = find_model("far/tiny", part=Part(1, 3), registry=registry.url)
        assert source.digest == find_model(str(model)).digest
        assert {name for name in registry.sent if name.endswith(".safetensors")} == {
            "layer-00001.safetensors",
            "layer-00002.safetensors",
        }
        mine, whole = load_blocks(source, 1, 3), load_blocks(find_model(str(model)), 1, 3)
        hidden = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(mine.run(hidden, mine.new_cache(), 1, 3), whole.run(hidden, whole.new_cache(), 1, 3))

    def test_a_client_gets_the_ends(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            source = find_model("far/tiny", part=ENDS, registry=registry.url)
        assert {name for name in registry.sent if name.endswith(".safetensors")} == {"ends.safetensors"}
        load_client_model(source)

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_every_kind_of_model_loads_from_its_layers(self, tmp_path: Path, kind: str) -> None:
        whole = make_model(tmp_path / kind, kind)
        with a_registry({kind: whole}) as registry:
            source = find_model(kind, part=Part(2, 4), registry=registry.url)
            mine, reference = load_blocks(source, 2, 4), load_blocks(find_model(str(whole)), 2, 4)
            hidden = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
            assert torch.equal(
                mine.run(hidden, mine.new_cache(), 2, 4), reference.run(hidden, reference.new_cache(), 2, 4)
            )
            load_client_model(find_model(kind, part=ENDS, registry=registry.url))

    def test_a_directory_that_was_pulled_in_part_says_what_it_lacks(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            path = find_model("far/tiny", part=Part(1, 3), registry=registry.url).path
        assert find_model(str(path), part=Part(1, 2)).digest == find_model(str(model)).digest
        with pytest.raises(ModelNotFound, match=r"was pulled in part and lacks layer-00000\.safetensors"):
            find_model(str(path), part=Part(0, 2))
        with pytest.raises(ModelNotFound, match="was pulled in part"):
            find_model(str(path))

    def test_configuration_alone_can_be_had(self, model: Path) -> None:
        with a_registry({"far/tiny": model}) as registry:
            source = find_model("far/tiny", part=Part(), registry=registry.url)
        assert block_count_of(source) == BLOCKS
        assert not [name for name in registry.sent if name.endswith(".safetensors")]
