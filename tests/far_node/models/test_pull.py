"""A model comes onto this disk in the wanted part, right or not at all, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from discovery.protocol.errors import FarError, InvalidArgument, ProtocolViolation, WeightsDamaged
from discovery.registry.manifest import Origin, read_manifest
from far_node.blocks.source import find_model
from far_node.errors import ModelNotFound, UnsafeWeights
from far_node.models.add import add
from far_node.models.download import Expected, Request, part_of
from far_node.models.errors import DownloadFailed, ModelInUse, NoSpace
from far_node.models.part import ENDS, Part
from far_node.models.progress import Progress
from far_node.models.pull import pull, pull_file
from far_node.models.store import ModelStore
from tests.support.models import make_model, make_sharded_model
from tests.support.registry import Registry, a_registry
from tests.support.swarm import COMMAND_SECONDS, run_command, run_python
from tests.support.web import Answer, Hub, a_hub, answering

NAME = "far/tiny"
LAYERS = [f"layer-{number:05d}.safetensors" for number in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def registry(model: Path) -> Iterator[Registry]:
    with a_registry({NAME: model}) as running:
        yield running


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


def weights_here(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.folder_of(NAME).glob("*.safetensors"))


class TestParts:
    """Each part brings its own files, and the rest can follow."""

    def test_blocks_then_others_then_the_ends(self, registry: Registry, store: ModelStore) -> None:
        first = pull(store, NAME, Part(1, 3), registry=registry.url)
        assert (first.blocks, first.ends, weights_here(store)) == (((1, 3),), False, LAYERS[1:3])
        second = pull(store, NAME, Part(4, 5))
        assert (second.blocks, weights_here(store)) == (((1, 3), (4, 5)), [*LAYERS[1:3], LAYERS[4]])
        third = pull(store, NAME, ENDS)
        assert (third.blocks, third.ends) == (((1, 3), (4, 5)), True)
        whole = pull(store, NAME)
        assert (whole.blocks, whole.ends, whole.digest) == (((0, 6),), True, first.digest)
        assert first.added_at == whole.added_at
        assert whole.size_bytes == sum(
            path.stat().st_size for path in store.folder_of(NAME).iterdir() if path.name in registry.sent
        )
        for name in (*LAYERS, "ends.safetensors"):
            assert registry.sent[name] == (store.folder_of(NAME) / name).stat().st_size, "nothing came twice"

    def test_the_index_lists_what_is_here(self, registry: Registry, store: ModelStore) -> None:
        pull(store, NAME, Part(1, 3), registry=registry.url)
        index = json.loads((store.folder_of(NAME) / "model.safetensors.index.json").read_text())
        for name in LAYERS[1:3]:
            own = {weight for weight, file in index["weight_map"].items() if file == name}
            assert own == set(load_file(store.folder_of(NAME) / name))
        assert set(index["weight_map"].values()) == set(LAYERS[1:3])

    def test_an_index_that_was_lost_is_written_again(self, registry: Registry, store: ModelStore) -> None:
        pull(store, NAME, Part(1, 3), registry=registry.url)
        (store.folder_of(NAME) / "model.safetensors.index.json").unlink()
        find_model(NAME, part=Part(1, 2))
        assert (store.folder_of(NAME) / "model.safetensors.index.json").is_file()

    def test_a_file_that_became_shorter_is_fetched_again(self, registry: Registry, store: ModelStore) -> None:
        pull(store, NAME, Part(1, 3), registry=registry.url)
        with (store.folder_of(NAME) / LAYERS[1]).open("r+b") as file:
            file.truncate(1000)
        assert pull(store, NAME, Part(1, 3)).blocks == ((1, 3),)
        find_model(NAME, part=Part(1, 3))

    def test_a_part_that_the_model_does_not_have(self, registry: Registry, store: ModelStore) -> None:
        for part in (Part(0, 7), Part(6, 7), Part(3, 2), Part(-1, 2)):
            with pytest.raises(InvalidArgument, match="are not within this model's 0:6"):
                pull(store, NAME, part, registry=registry.url)
        assert weights_here(store) == []

    def test_what_is_here_needs_no_registry(self, registry: Registry, store: ModelStore) -> None:
        pull(store, NAME, Part(1, 3), registry=registry.url)
        registry.sent.clear()
        pull(store, NAME, Part(2, 3))
        assert registry.sent == {}

    def test_progress_rises_to_the_whole(self, registry: Registry, store: ModelStore) -> None:
        seen: list[Progress] = []
        pull(store, NAME, Part(1, 2), registry=registry.url)
        pull(store, NAME, Part(0, 3), on_progress=seen.append)
        assert [now.done for now in seen] == sorted(now.done for now in seen)
        assert (seen[0].work, seen[0].model) == ("pulling", NAME)
        assert seen[0].done >= (store.folder_of(NAME) / LAYERS[1]).stat().st_size, "what is here counts at once"
        assert seen[-1].done == seen[-1].total


class TestCuts:
    """A pull that broke off goes on from there."""

    def test_within_one_pull(self, registry: Registry, store: ModelStore, model: Path) -> None:
        registry.cut_after = [50_000, 1_000, 0]
        pull(store, NAME, registry=registry.url)
        assert find_model(NAME).digest == find_model(str(model)).digest
        for name in LAYERS:
            size = (store.folder_of(NAME) / name).stat().st_size
            assert registry.sent[name] <= size + 300_000, "only what was on its way came twice"

    def test_a_pull_that_was_killed(self, model: Path, store: ModelStore) -> None:
        """By SIGKILL in the middle of a layer: nothing half-written has its name, and the next pull goes on."""
        served, cut, killed = Served(model), LAYERS[2], threading.Event()
        asked: list[str | None] = []

        def answer(path: str, wanted: str | None) -> Answer:
            status, headers, body = served.answer(path, wanted)
            if not path.endswith(cut) or killed.is_set():
                asked.append(wanted)
                return status, headers, body
            if wanted is not None:  # it goes on by itself after the first cut, and waits here for its end
                killed.wait(30)
            return status, {"Content-Length": str(len(body))} | headers, body[:70_000]

        program = (
            "from far_node.models.pull import pull; from far_node.models.store import ModelStore; import sys; "
            "pull(ModelStore(), sys.argv[1], registry=sys.argv[2])"
        )
        part = part_of(store.folder_of(NAME) / cut)
        with answering(answer) as url:
            with subprocess.Popen([sys.executable, "-c", program, NAME, url]) as process:
                deadline = time.monotonic() + 30
                while not (part.exists() and part.stat().st_size == 70_000) and time.monotonic() < deadline:
                    time.sleep(0.005)
                process.kill()
            killed.set()
            assert weights_here(store)[-1] < cut, "what is not whole has no name"
            assert part.stat().st_size == 70_000
            record = store.get(NAME)
            assert record is not None
            assert record.digest == served.manifest.digest, "it is known, and how much it will take"
            assert record.size_bytes == sum(e.size for e in (*served.manifest.files, *served.manifest.shards))
            asked.clear()
            pull(store, NAME)
        assert asked[0] == "bytes=70000-"
        assert find_model(NAME).digest == find_model(str(model)).digest

    def test_a_disk_that_is_full(self, registry: Registry, store: ModelStore) -> None:
        ended = run_python(_WITH_LITTLE_SPACE, NAME, registry.url)
        assert ended.out.startswith("no_space the disk of"), ended.err
        assert not [name for name in weights_here(store) if name in LAYERS]
        assert pull(store, NAME).blocks == ((0, 6),)

    def test_no_room_within_the_limit(self, registry: Registry) -> None:
        with pytest.raises(NoSpace, match="alone is larger than the size limit"):
            pull(ModelStore(max_bytes=100_000), NAME, registry=registry.url)
        assert not [name for name in registry.sent if name.endswith(".safetensors")]
        pull(ModelStore(max_bytes=200_000), NAME, Part(0, 1), registry=registry.url)


_WITH_LITTLE_SPACE = """
import resource, signal, sys
from discovery.protocol.errors import FarError
from far_node.models.pull import pull
from far_node.models.store import ModelStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    pull(ModelStore(), sys.argv[1], registry=sys.argv[2])
except FarError as error:
    print(error.code, error.message)
"""

_PULL = """
import sys
from far_node.models.part import Part
from far_node.models.pull import pull
from far_node.models.store import ModelStore
record = pull(ModelStore(), sys.argv[1], Part(int(sys.argv[3]), int(sys.argv[4])), registry=sys.argv[2])
print(record.blocks)
"""


class TestTogether:
    """Several processes pull at once."""

    def test_they_do_not_damage_each_other_and_fetch_nothing_twice(
        self, registry: Registry, store: ModelStore, model: Path
    ) -> None:
        ranges = [(0, 4), (0, 4), (2, 6), (5, 6)]
        running = [
            subprocess.Popen([sys.executable, "-c", _PULL, NAME, registry.url, str(first), str(end)])
            for first, end in ranges
        ]
        assert [process.wait(60) for process in running] == [0] * 4
        record = store.get(NAME)
        assert record is not None
        assert (record.blocks, weights_here(store)) == (((0, 6),), LAYERS)
        for name in LAYERS:
            assert registry.sent[name] == (store.folder_of(NAME) / name).stat().st_size
        assert find_model(NAME, part=Part(0, 6)).digest == find_model(str(model)).digest

    def test_who_must_wait_is_told(self, registry: Registry, store: ModelStore) -> None:
        waited = threading.Event()
        with store.changing(NAME):
            second = threading.Thread(
                target=pull, args=(store, NAME, Part()), kwargs={"registry": registry.url, "on_wait": waited.set}
            )
            second.start()
            assert waited.wait(10)
            assert weights_here(store) == []
        second.join(30)
        assert not second.is_alive()

    def test_a_model_that_is_being_pulled_is_not_removed(self, registry: Registry, store: ModelStore) -> None:
        pull(store, NAME, Part(), registry=registry.url)
        with store.changing(NAME), pytest.raises(ModelInUse):
            store.remove(NAME)


class Served:
    """A registry that says what it is told to: ``manifest`` as JSON, and files by name."""

    def __init__(self, model: Path) -> None:
        self.files: dict[str, bytes] = {}
        with a_registry({NAME: model}) as registry, httpx.Client(base_url=f"{registry.url}/models/{NAME}/") as client:
            self.manifest = read_manifest(client.get("manifest").content)
            self.text = client.get("manifest").content
            for entry in (*self.manifest.files, *self.manifest.shards):
                self.files[entry.name] = client.get(f"files/{entry.name}").content

    def answer(self, path: str, asked: str | None) -> Answer:
        """As a server that knows ranges answers."""
        name = path.rpartition("/")[2]
        if name == "manifest":
            return 200, {}, self.text
        if name not in self.files:
            return 404, {}, b""
        body = self.files[name]
        if asked is None:
            return 200, {}, body
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        return 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:]

    def say(self, **changes: Any) -> None:
        """Change the manifest."""
        self.text = json.dumps(json.loads(self.text) | changes).encode()


@pytest.fixture
def served(model: Path) -> Served:
    return Served(model)


class TestStrangers:
    """A registry that is damaged, or means ill."""

    def refused(self, served: Served, store: ModelStore, kind: type[FarError], words: str) -> list[str]:
        asked: list[str] = []

        def answer(path: str, wanted: str | None) -> Answer:
            asked.append(path.rpartition("/")[2])
            return served.answer(path, wanted)

        with answering(answer) as url, pytest.raises(kind, match=words):
            pull(store, NAME, registry=url)
        return asked

    def test_a_layer_with_other_bytes_is_deleted_and_named(self, served: Served, store: ModelStore) -> None:
        body = served.files[LAYERS[3]]
        served.files[LAYERS[3]] = body[:-1] + bytes([body[-1] ^ 1])
        self.refused(
            served, store, WeightsDamaged, r"layer-00003\.safetensors is not what its manifest says .* deleted"
        )
        assert LAYERS[3] not in weights_here(store)
        assert not part_of(store.folder_of(NAME) / LAYERS[3]).exists()
        served.files[LAYERS[3]] = body
        with answering(served.answer) as url:
            pull(store, NAME, registry=url)

    def test_a_layer_that_is_longer(self, served: Served, store: ModelStore) -> None:
        served.files[LAYERS[0]] += b"x"
        self.refused(served, store, WeightsDamaged, r"layer-00000\.safetensors is longer than")

    def test_a_layer_that_is_no_safetensors_file(self, served: Served, store: ModelStore) -> None:
        junk = b"\x80\x04pickled"
        shards = [shard.model_dump() for shard in served.manifest.shards]
        for shard in shards:
            if shard["name"] == LAYERS[0]:
                shard |= {"size": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}
        served.say(shards=shards)
        served.files[LAYERS[0]] = junk
        self.refused(served, store, WeightsDamaged, "is not a well-formed safetensors file")
        assert LAYERS[0] not in weights_here(store)

    @pytest.mark.parametrize("name", ["weights.bin", "weights.pt", "../../x.safetensors", "/x.safetensors", "code.py"])
    def test_a_file_that_is_not_taken_is_refused_before_a_byte_is_fetched(
        self, served: Served, store: ModelStore, name: str
    ) -> None:
        shards = [shard.model_dump() for shard in served.manifest.shards]
        served.say(shards=[*shards, shards[0] | {"name": name}])
        asked = self.refused(served, store, ProtocolViolation, "is no safetensors file")
        assert asked == ["manifest"]
        assert not store.folder_of(NAME).exists()

    def test_a_digest_that_is_not_that_of_the_files(self, served: Served, store: ModelStore) -> None:
        served.say(digest="0" * 64)
        self.refused(served, store, ProtocolViolation, "the digest is not that of its files")

    def test_a_config_that_is_not_the_one_of_the_digest(self, served: Served, store: ModelStore) -> None:
        body = served.files["config.json"]
        served.files["config.json"] = body.replace(b"llama", b"LLAMA")
        assert len(served.files["config.json"]) == len(body)
        self.refused(served, store, WeightsDamaged, r"config\.json is not what its manifest says")

    def test_the_same_weight_in_two_layers(self, served: Served, store: ModelStore) -> None:
        shards = {shard.name: shard.model_dump() for shard in served.manifest.shards}
        served.files[LAYERS[1]] = served.files[LAYERS[0]]
        shards[LAYERS[1]] = shards[LAYERS[0]] | {"name": LAYERS[1]}
        served.say(shards=list(shards.values()))
        self.refused(served, store, WeightsDamaged, "is in layer-00001.safetensors and in layer-00000.safetensors")

    @pytest.mark.parametrize("text", [b"", b"<html>", b"{}", b'{"format": "far-mesh/manifest/v9"}'])
    def test_an_answer_that_is_no_manifest(self, served: Served, store: ModelStore, text: bytes) -> None:
        served.text = text
        self.refused(served, store, ProtocolViolation, "not the manifest of a model")

    def test_a_manifest_without_end(self, served: Served, store: ModelStore) -> None:
        served.text = b" " * (17 << 20)
        self.refused(served, store, DownloadFailed, "more than 16777216 bytes")

    def test_a_registry_without_the_model(self, registry: Registry, store: ModelStore) -> None:
        with pytest.raises(ModelNotFound, match="has no model 'far/other'"):
            pull(store, "far/other", registry=registry.url)
        assert not store.folder_of("far/other").exists()

    @pytest.mark.parametrize("url", ["", "ftp://x", "file:///etc", "http://", "x", "http://x?y=1", "http://[::1"])
    def test_an_address_that_is_none(self, store: ModelStore, url: str) -> None:
        with pytest.raises(InvalidArgument, match="is no address"):
            pull(store, NAME, registry=url)

    def test_a_registry_that_is_not_there(self, store: ModelStore) -> None:
        with pytest.raises(DownloadFailed, match="cannot be read"):
            pull(store, NAME, registry="http://127.0.0.1:1")


class TestAnother:
    """One name is one model."""

    def test_another_model_of_the_same_name_is_refused(
        self, registry: Registry, store: ModelStore, tmp_path: Path
    ) -> None:
        digest = pull(store, NAME, Part(0, 1), registry=registry.url).digest
        other = make_model(tmp_path / "other", seed=1)
        with a_registry({NAME: other}) as elsewhere, pytest.raises(InvalidArgument, match="another model is here"):
            pull(store, NAME, Part(0, 2), registry=elsewhere.url)
        record = store.get(NAME)
        assert record is not None
        assert (record.digest, record.blocks) == (digest, ((0, 1),))

    def test_the_same_model_elsewhere_will_do(self, registry: Registry, store: ModelStore, model: Path) -> None:
        pull(store, NAME, Part(0, 1), registry=registry.url)
        with a_registry({NAME: model}) as elsewhere:
            pull(store, NAME, Part(0, 2), registry=elsewhere.url)
            assert set(elsewhere.sent) == {"manifest", LAYERS[1]}

    def test_the_same_model_under_another_name(self, registry: Registry, store: ModelStore) -> None:
        assert pull(store, "mine", Part(0, 1), registry=registry.url, model_id=NAME).name == "mine"
        assert pull(store, "mine", Part(0, 2)).blocks == ((0, 2),)

    def test_a_model_that_was_added_is_not_pulled_over(
        self, registry: Registry, store: ModelStore, model: Path
    ) -> None:
        add(store, NAME, str(model), link=True)
        with pytest.raises(InvalidArgument, match="another model is here"):
            pull(store, NAME, registry=registry.url)

    def test_a_model_in_other_files_is_not_mixed_with_layers(
        self, registry: Registry, store: ModelStore, model: Path
    ) -> None:
        add(store, NAME, str(model))
        with pytest.raises(InvalidArgument, match="in files that are cut in another way"):
            pull(store, NAME, registry=registry.url)


class TestOneFile:
    """A GGUF file, which is a whole model."""

    CONTENT = b"GGUF" + bytes(1000)

    def of(self, content: bytes) -> Expected:
        return Expected("tiny.gguf", len(content), hashlib.sha256(content).hexdigest())

    def test_it_is_kept_under_its_name(self, store: ModelStore) -> None:
        with answering(lambda _path, _asked: (200, {}, self.CONTENT)) as url:
            origin = Origin(kind="url", place=url)
            record = pull_file(store, "tiny", Request(f"{url}/x"), self.of(self.CONTENT), origin)
        assert (record.kind, record.size_bytes) == ("gguf", 1004)
        assert store.place_of(record).read_bytes() == self.CONTENT
        assert pull_file(store, "tiny", Request("http://127.0.0.1:1"), self.of(self.CONTENT), origin) == record

    @pytest.mark.parametrize(
        "name", ["model.bin", "model.pt", "model.pkl", "model.safetensors", "x/../a.gguf", ".gguf"]
    )
    def test_any_other_format_is_refused_before_a_byte_is_fetched(self, store: ModelStore, name: str) -> None:
        origin = Origin(kind="url", place="x")
        with pytest.raises(UnsafeWeights, match="nothing was fetched"):
            pull_file(store, "tiny", Request("http://127.0.0.1:1"), Expected(name, 10), origin)
        assert not store.directory.exists()


class TestHub:
    """The command against a hub, in a process of its own."""

    @pytest.fixture
    def hub(self, tmp_path: Path) -> Iterator[Hub]:
        with a_hub(make_sharded_model(tmp_path / "sharded")) as running:
            yield running

    def pull(self, hub: Hub, tmp_path: Path, *arguments: str, endpoint: str = "") -> tuple[int, dict[str, Any]]:
        settings = {"HF_ENDPOINT": endpoint or hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        command = ["far_node.cli", "models", "pull", hub.repository, "--json", *arguments]
        ended = run_command(*command, timeout=COMMAND_SECONDS, **settings)
        assert ended.out, ended.err
        return ended.status, ended.events[-1]

    def refused(self, hub: Hub, tmp_path: Path, code: str, words: str, *arguments: str) -> None:
        status, event = self.pull(hub, tmp_path, *arguments)
        assert (status, event["event"], event["code"]) == (1, "error", code)
        assert words in event["message"]

    def test_a_cut_download_goes_on(self, hub: Hub, tmp_path: Path) -> None:
        size = (hub.directory / "model-00001-of-00017.safetensors").stat().st_size
        hub.cut_after = [10**9, 10**9, 10**9, 5_000]  # config, generation config, index; then weights
        status, event = self.pull(hub, tmp_path)
        assert (status, event["event"], event["blocks"]) == (0, "pulled", [[0, 6]])
        assert [entry.partition(":")[2] for entry in hub.ranges] == ["5000"]
        assert hub.sent["model-00001-of-00017.safetensors"] == size

    def test_weights_that_are_not_those_of_the_listing(self, hub: Hub, tmp_path: Path, store: ModelStore) -> None:
        name = "model-00004-of-00017.safetensors"
        content = (hub.directory / name).read_bytes()
        hub.changed[name] = content[:-1] + bytes([content[-1] ^ 1])
        self.refused(hub, tmp_path, "weights_damaged", f"{name} is not what its manifest says")
        assert not (store.folder_of(hub.repository) / name).exists()

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
    def test_small_files_that_are_not_those_of_the_listing(self, hub: Hub, tmp_path: Path, name: str) -> None:
        hub.changed[name] = (hub.directory / name).read_bytes().replace(b"layers", b"LAYERS")
        self.refused(hub, tmp_path, "weights_damaged", f"{name} is not what")

    def test_weights_without_a_hash_in_the_listing_are_checked_by_git(self, hub: Hub, tmp_path: Path) -> None:
        name = "model-00004-of-00017.safetensors"
        hub.in_git.add(name)
        status, event = self.pull(hub, tmp_path, "--ends")
        assert (status, event["digest"]) == (0, find_model(str(hub.directory)).digest)
        assert hub.sent[name] == (hub.directory / name).stat().st_size, "read to know its hash"
        shutil.rmtree(ModelStore().directory)
        hub.changed[name] = (hub.directory / name).read_bytes()[:-1] + b"!"
        self.refused(hub, tmp_path, "weights_damaged", f"{name} is not what its manifest says", "--ends")

    def test_a_repository_of_pickles_is_refused_before_a_byte_is_fetched(self, hub: Hub, tmp_path: Path) -> None:
        for file in hub.directory.glob("model*"):
            file.unlink()
        (hub.directory / "pytorch_model.bin").write_bytes(b"code")
        self.refused(hub, tmp_path, "unsafe_weights", "only pytorch_model.bin, which can run code when loaded")
        assert hub.files_asked() == set()

    def test_an_index_that_leads_elsewhere(self, hub: Hub, tmp_path: Path) -> None:
        for name, code in (
            ("../x.safetensors", "is no safetensors file beside it"),
            ("x.safetensors", "does not have"),
        ):
            (hub.directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
            self.refused(hub, tmp_path, "weights_damaged", code)
        assert not [name for name in hub.sent if name.endswith(".safetensors")]

    def test_names_in_the_listing_that_lead_elsewhere_are_left_aside(self, hub: Hub, tmp_path: Path) -> None:
        hub.more_files = {"../../evil.json": 10, "/etc/evil.json": 10, "sub/evil.json": 10, "evil.py": 10}
        status, _ = self.pull(hub, tmp_path, "--ends")
        assert status == 0
        assert not [path for path in hub.asked if "evil" in path]

    @pytest.mark.parametrize(
        "sibling", [{"size": -1}, {"size": 2**60}, {"size": "1"}, {"blobId": "x"}, {"blobId": None}]
    )
    def test_a_listing_that_means_nothing(self, hub: Hub, tmp_path: Path, sibling: dict[str, Any]) -> None:
        hub.odd_sibling = {"rfilename": "odd.json", "size": 1, "blobId": "0" * 40} | sibling
        self.refused(hub, tmp_path, "protocol_violation", "listing of far/tiny cannot be understood")

    def test_a_small_file_that_is_too_large_is_left_aside(self, hub: Hub, tmp_path: Path) -> None:
        hub.more_files = {"huge.json": 100 << 20}
        status, _ = self.pull(hub, tmp_path, "--ends")
        assert status == 0

    def test_a_config_that_says_nothing(self, hub: Hub, tmp_path: Path) -> None:
        (hub.directory / "config.json").write_text("{}")
        self.refused(hub, tmp_path, "model_unsupported", "does not say how many layers")
        (hub.directory / "config.json").unlink()
        shutil.rmtree(ModelStore().directory)
        self.refused(hub, tmp_path, "model_unavailable", "holds no config.json")

    def test_a_gguf_file_of_the_repository(self, hub: Hub, tmp_path: Path, store: ModelStore) -> None:
        (hub.directory / "tiny.Q8_0.gguf").write_bytes(b"GGUF" + bytes(100))
        status, event = self.pull(hub, tmp_path, "--file", "tiny.Q8_0.gguf")
        assert (status, event["kind"], event["file"]) == (0, "gguf", "tiny.Q8_0.gguf")
        assert set(hub.sent) == {"tiny.Q8_0.gguf"}
        for name, code in (("pytorch_model.bin", "unsafe_weights"), ("absent.gguf", "model_unavailable")):
            self.refused(hub, tmp_path, code, name, "--file", name)
