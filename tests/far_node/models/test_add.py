"""A model that somebody has already is checked before it is kept, and left alone if it is only linked."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from discovery.protocol.errors import FarError, InvalidArgument, WeightsDamaged
from far_node.blocks.source import find_model
from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights
from far_node.models.add import add
from far_node.models.errors import NoSpace
from far_node.models.part import Part
from far_node.models.progress import Progress
from far_node.models.pull import pull
from far_node.models.store import ModelStore
from tests.support.models import make_model, make_sharded_model
from tests.support.registry import a_registry
from tests.support.swarm import run_python
from tests.support.web import answering

GGUF = b"GGUF" + bytes(2000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class TestDirectories:
    """A model directory is copied, or linked."""

    @pytest.mark.parametrize("link", [False, True])
    def test_it_is_the_same_model(self, store: ModelStore, model: Path, link: bool) -> None:
        before = contents(model)
        record = add(store, "ours", str(model), link=link)
        assert (record.digest, record.blocks, record.ends) == (find_model(str(model)).digest, ((0, 6),), True)
        assert (record.linked, store.place_of(record) == model) == (link, link)
        assert find_model("ours").digest == record.digest
        assert contents(model) == before, "the owner's files are as they were"

    def test_a_copy_lives_on_without_the_original(self, store: ModelStore, model: Path) -> None:
        digest = add(store, "ours", str(model)).digest
        shutil.rmtree(model)
        assert find_model("ours").digest == digest

    def test_a_model_in_many_files(self, store: ModelStore, tmp_path: Path) -> None:
        model = make_sharded_model(tmp_path / "sharded")
        (model / "pytorch_model.bin").write_bytes(b"code")
        (model / "notes.md").write_text("mine")
        add(store, "ours", str(model))
        assert find_model("ours").digest == find_model(str(model)).digest
        kept = {path.name for path in store.folder_of("ours").iterdir()}
        assert not kept & {"pytorch_model.bin", "notes.md"}

    def test_layers_beyond_the_decoder_are_kept_and_belong_to_no_block(self, store: ModelStore, tmp_path: Path) -> None:
        """As in a model that can predict several tokens: its extra layer is numbered on."""
        model = make_sharded_model(tmp_path / "sharded")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
        assert add(store, "ours", str(model)).blocks == ((0, 4),)
        assert find_model("ours").digest == find_model(str(model)).digest

    @pytest.mark.parametrize("link", [False, True])
    def test_a_directory_that_was_pulled_in_part(
        self, store: ModelStore, model: Path, tmp_path: Path, link: bool
    ) -> None:
        """As it comes on a stick from another machine."""
        with a_registry({"far/tiny": model}) as registry:
            pull(store, "far/tiny", Part(1, 3), registry=registry.url)
        stick = shutil.move(store.folder_of("far/tiny"), tmp_path / "stick")
        record = add(store, "ours", str(stick), link=link)
        assert (record.blocks, record.ends, record.block_count) == (((1, 3),), False, 6)
        assert find_model("ours", part=Part(1, 3)).digest == find_model(str(model)).digest

    def test_progress_is_told_of_checking_and_copying(self, store: ModelStore, model: Path) -> None:
        seen: list[Progress] = []
        add(store, "ours", str(model), on_progress=seen.append)
        for work in ("verifying", "copying"):
            own = [now for now in seen if now.work == work]
            assert own, work
            assert own[-1].done == own[-1].total > 800_000

    def test_a_file_that_is_changed_while_it_is_copied_is_noticed(self, store: ModelStore, model: Path) -> None:
        def change(now: Progress) -> None:
            if now.work == "copying":
                with (model / "model.safetensors").open("r+b") as file:
                    file.seek(-1, 2)
                    file.write(b"!")

        with pytest.raises(WeightsDamaged, match=r"model\.safetensors was changed while it was copied"):
            add(store, "ours", str(model), on_progress=change)
        assert not list(store.folder_of("ours").glob("*.safetensors"))
        add(store, "ours", str(model))
        find_model("ours")


class TestRefused:
    """What is no model, or not one that we take, is not kept."""

    def refused(self, store: ModelStore, source: Path | str, kind: type[FarError], words: str) -> None:
        for link in (False, True):
            with pytest.raises(kind, match=words):
                add(store, "ours", str(source), link=link)
        assert store.records() == {}
        assert not store.folder_of("ours").exists()

    def test_a_directory_without_a_config(self, store: ModelStore, model: Path) -> None:
        (model / "config.json").unlink()
        self.refused(store, model, ModelNotFound, r"holds no config\.json")

    def test_a_config_without_layers(self, store: ModelStore, model: Path) -> None:
        (model / "config.json").write_text("{}")
        self.refused(store, model, ModelUnsupported, "does not say how many layers")

    def test_weights_that_can_run_code(self, store: ModelStore, model: Path) -> None:
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
        self.refused(store, model, UnsafeWeights, r"found pytorch_model\.bin, which can run code")

    def test_a_damaged_file(self, store: ModelStore, model: Path) -> None:
        with (model / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        self.refused(store, model, WeightsDamaged, "is not a well-formed safetensors file")

    def test_weights_that_no_loader_would_find(self, store: ModelStore, model: Path) -> None:
        (model / "model.safetensors").rename(model / "weights.safetensors")
        self.refused(store, model, ModelNotFound, r"holds neither model\.safetensors nor an index")

    def test_a_missing_file_of_the_index(self, store: ModelStore, tmp_path: Path) -> None:
        model = make_sharded_model(tmp_path / "sharded")
        (model / "model-00003-of-00017.safetensors").unlink()
        self.refused(store, model, ModelNotFound, r"lacks model-00003-of-00017\.safetensors, which its index names")

    @pytest.mark.parametrize("name", ["x.bin", "x.pt", "x.ckpt", "x.safetensors", "x.zip"])
    def test_a_single_file_in_another_format(self, store: ModelStore, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(GGUF)
        self.refused(store, tmp_path / name, UnsafeWeights, name)

    def test_a_file_that_is_only_called_gguf(self, store: ModelStore, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_bytes(b"\x80\x04pickled")
        self.refused(store, tmp_path / "x.gguf", WeightsDamaged, "x.gguf is not a GGUF file")

    def test_what_is_not_there(self, store: ModelStore, tmp_path: Path) -> None:
        self.refused(store, tmp_path / "x.gguf", ModelNotFound, "there is no file or directory")
        self.refused(store, tmp_path / "nowhere", UnsafeWeights, "is neither a GGUF file nor a model directory")

    def test_a_link_that_leads_elsewhere_is_not_copied(self, store: ModelStore, model: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("{}")
        (model / "tokenizer_config.json").symlink_to(tmp_path / "secret")
        with pytest.raises(InvalidArgument, match=r"tokenizer_config\.json in .* is a link that leads elsewhere"):
            add(store, "ours", str(model))

    def test_a_name_that_is_taken(self, store: ModelStore, model: Path) -> None:
        first = add(store, "ours", str(model))
        for link in (False, True):
            with pytest.raises(InvalidArgument, match="another model is here under the name ours"):
                add(store, "ours", str(model), link=link)
        assert store.get("ours") == first

    def test_a_name_that_is_none(self, store: ModelStore, model: Path) -> None:
        with pytest.raises(InvalidArgument, match="is no name for a model"):
            add(store, "../ours", str(model))


class TestFiles:
    """A GGUF file from this disk or from the web."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "tiny.gguf").write_bytes(GGUF)
        return tmp_path / "tiny.gguf"

    @pytest.mark.parametrize("link", [False, True])
    def test_from_this_disk(self, store: ModelStore, file: Path, link: bool) -> None:
        record = add(store, "ours", str(file), link=link)
        assert (record.kind, record.file, record.sha256) == ("gguf", "tiny.gguf", hashlib.sha256(GGUF).hexdigest())
        assert store.place_of(record).read_bytes() == GGUF
        assert (store.place_of(record) == file) == link
        assert record.size_bytes == (0 if link else len(GGUF))

    def test_from_the_web(self, store: ModelStore) -> None:
        with answering(lambda _path, _asked: (200, {}, GGUF)) as url:
            record = add(store, "ours", f"{url}/files/tiny%2Dq8.gguf?key=secret")
        assert (record.file, record.origin.kind) == ("tiny-q8.gguf", "url")
        assert record.origin.place == f"{url}/files/tiny%2Dq8.gguf", "without the key"
        assert store.place_of(record).read_bytes() == GGUF

    def test_a_hash_that_is_asked_for(self, store: ModelStore, file: Path) -> None:
        right, wrong = hashlib.sha256(GGUF).hexdigest(), "0" * 64
        with answering(lambda _path, _asked: (200, {}, GGUF)) as url:
            for source in (str(file), f"{url}/tiny.gguf"):
                with pytest.raises(WeightsDamaged):
                    add(store, "ours", source, sha256=wrong)
                assert add(store, "ours", source, sha256=right).sha256 == right
                store.remove("ours")

    @pytest.mark.parametrize(
        "path", ["x.bin", "x.safetensors", "", "x.gguf/", "a%2F..%2Fx.pt", "%2e%2e", "x.bin?y.gguf", "x.bin#y.gguf"]
    )
    def test_an_address_of_another_format_is_not_even_asked(self, store: ModelStore, path: str) -> None:
        asked: list[str | None] = []
        with answering(lambda _path, _asked: (200, {}, GGUF), asked) as url, pytest.raises(UnsafeWeights):
            add(store, "ours", f"{url}/{path}")
        assert asked == []
        assert not store.directory.exists()

    @pytest.mark.parametrize("sha256", ["", "xyz", "0" * 63, "A" * 64])
    def test_a_hash_that_is_none(self, store: ModelStore, file: Path, sha256: str) -> None:
        with pytest.raises(InvalidArgument, match="64 hexadecimal digits"):
            add(store, "ours", str(file), sha256=sha256)

    def test_arguments_that_do_not_go_together(self, store: ModelStore, model: Path) -> None:
        with pytest.raises(InvalidArgument, match="cannot be linked"):
            add(store, "ours", "https://example.org/x.gguf", link=True)
        with pytest.raises(InvalidArgument, match="--sha256 is for a single file"):
            add(store, "ours", str(model), sha256="0" * 64)

    def test_a_file_that_was_changed_is_not_used(self, store: ModelStore, file: Path) -> None:
        add(store, "ours", str(file), link=True)
        file.write_bytes(GGUF + b"!")
        with pytest.raises(WeightsDamaged, match="is not the file that was added"):
            find_model("ours")
        assert file.exists()


def test_a_disk_that_is_full_leaves_nothing_half_copied(store: ModelStore, model: Path) -> None:
    ended = run_python(_WITH_LITTLE_SPACE, str(model))
    assert ended.out.startswith(f"{NoSpace.code} the disk of"), ended.err
    assert not list(store.folder_of("ours").glob("*model*"))
    add(store, "ours", str(model))
    find_model("ours")


_WITH_LITTLE_SPACE = """
import resource, signal, sys
from discovery.protocol.errors import FarError
from far_node.models.add import add
from far_node.models.store import ModelStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    add(ModelStore(), "ours", sys.argv[1])
except FarError as error:
    print(error.code, error.message)
"""
