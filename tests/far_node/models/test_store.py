"""The models directory: what is there, who uses it, and what goes when there is no room."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument
from discovery.registry.manifest import Origin
from far_node.blocks.source import find_model
from far_node.errors import ModelNotFound
from far_node.models.add import add
from far_node.models.errors import ModelInUse, NoSpace
from far_node.models.store import ModelStore, Record, check_name, is_name, parse_size
from tests.support.models import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@contextmanager
def used_elsewhere(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has found the model, as a running node has."""
    program = (
        "import sys; from far_node.blocks.source import find_model; "
        f"find_model({name!r}); print('found', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"found\n"
            yield process
        finally:
            process.kill()


def test_what_is_added_is_written_down(store: ModelStore, model: Path) -> None:
    add(store, "far/ours", str(model))
    written = json.loads((store.directory / "models.json").read_text())["models"]["far/ours"]
    size = sum(file.stat().st_size for file in model.iterdir())
    assert written["digest"] == find_model(str(model)).digest
    assert (written["size_bytes"], written["blocks"], written["ends"]) == (size, [[0, 6]], True)
    assert written["origin"] == {"kind": "local", "place": str(model), "revision": None}
    assert 0 < written["added_at"] <= written["last_used_at"]
    assert store.get("far/ours") == store.records()["far/ours"]
    assert store.used_bytes() == size


def test_use_is_written_down(store: ModelStore, model: Path) -> None:
    before = add(store, "ours", str(model)).last_used_at
    find_model("ours")
    after = store.get("ours")
    assert after is not None
    assert after.last_used_at > before


@pytest.mark.parametrize("name", ["tiny", "far/tiny", "Qwen2.5-0.5B", "a_b.c-d"])
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a/b/c", "..", "../x", "a/..", ".hidden", "-x", "a b", "a--b", "a\nb", "a" * 97, "ä", "a..b"],
)
def test_names_that_could_mean_another_place(name: str, store: ModelStore) -> None:
    assert not is_name(name)
    with pytest.raises(InvalidArgument, match="is no name for a model"):
        store.folder_of(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("200GB", 200 * 10**9), ("1.5 TiB", 3 * 2**39), ("2kib", 2048), ("3m", 3_000_000), ("10B", 10)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-1GB", "0.1", "1XB", "1e9", "1GB2", "٣GB", "nan", "iB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no size such as"):
        parse_size(text)


class TestSettings:
    """Arguments come before the environment."""

    def test_the_directory_is_that_of_the_environment(
        self, models_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert ModelStore().directory == models_directory
        assert ModelStore(tmp_path).directory == tmp_path
        monkeypatch.delenv("FAR_MODELS_DIR")
        assert ModelStore().directory == Path.home() / ".far" / "models"

    def test_the_limit_is_that_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert ModelStore().max_bytes is None
        monkeypatch.setenv("FAR_MODELS_MAX_SIZE", "5GB")
        assert (ModelStore().max_bytes, ModelStore(max_bytes=7).max_bytes) == (5 * 10**9, 7)
        monkeypatch.setenv("FAR_MODELS_MAX_SIZE", "much")
        with pytest.raises(InvalidArgument, match="'much' is no size"):
            ModelStore()


class TestRemoving:
    """Nothing goes that somebody uses."""

    def test_a_model_is_gone_with_its_files(self, store: ModelStore, model: Path) -> None:
        add(store, "ours", str(model))
        store.remove("ours")
        assert store.records() == {}
        assert sorted(path.name for path in store.directory.iterdir()) == [".locks", "models.json"]
        with pytest.raises(ModelNotFound):
            find_model("ours")

    def test_a_linked_model_is_only_forgotten(self, store: ModelStore, model: Path) -> None:
        before = sorted(model.iterdir())
        add(store, "ours", str(model), link=True)
        assert store.used_bytes() == 0
        store.remove("ours")
        assert (store.records(), sorted(model.iterdir())) == ({}, before)

    def test_a_model_that_is_not_there(self, store: ModelStore) -> None:
        for name in ("ours", "", "../x"):
            with pytest.raises(ModelNotFound, match="there is no model"):
                store.remove(name)

    def test_a_model_that_another_process_uses_stays(self, store: ModelStore, model: Path) -> None:
        add(store, "ours", str(model))
        with used_elsewhere("ours") as process:
            with pytest.raises(ModelInUse, match="ours is in use by a running process"):
                store.remove("ours")
            assert find_model("ours").path.is_dir()
            store.release("ours")
            process.kill()
            process.wait(10)
            store.remove("ours")

    def test_each_use_is_released_by_itself(self, store: ModelStore, model: Path) -> None:
        add(store, "ours", str(model))
        find_model("ours")
        find_model("ours")
        store.release("ours")
        with pytest.raises(ModelInUse):
            store.remove("ours")
        store.release("ours")
        store.release("ours")
        store.remove("ours")


class TestRoom:
    """What was not used for longest goes when there is no room."""

    @pytest.fixture
    def size(self, store: ModelStore, model: Path) -> int:
        """Three models, ``a`` used last, then ``c``, then ``b``; the bytes of each."""
        for name in ("a", "b", "c"):
            add(store, name, str(model))
        for name in ("c", "a"):
            find_model(name)
            store.release(name)
        return store.used_bytes() // 3

    @pytest.mark.parametrize(("limit", "left"), [(4, "abcd"), (3, "acd"), (2, "ad"), (1, "d")])
    def test_the_least_recently_used_goes_first(
        self, store: ModelStore, model: Path, size: int, limit: int, left: str
    ) -> None:
        add(ModelStore(max_bytes=limit * size), "d", str(model))
        assert "".join(sorted(store.records())) == left
        assert "".join(sorted(path.name for path in store.directory.iterdir() if len(path.name) == 1)) == left

    def test_one_in_use_stays_and_the_next_goes(self, store: ModelStore, model: Path, size: int) -> None:
        with used_elsewhere("b"):  # which makes it the last used, so that the order alone would spare it …
            self.age(store, "b")  # … but for this
            add(ModelStore(max_bytes=3 * size), "d", str(model))
        assert sorted(store.records()) == ["a", "b", "d"]

    def test_no_room_among_models_in_use(self, store: ModelStore, model: Path, size: int) -> None:
        for name in ("a", "b", "c"):
            store.use(name)
        with pytest.raises(NoSpace, match=r"does not fit into the size limit .* the rest is in use"):
            add(ModelStore(max_bytes=3 * size), "d", str(model))
        store.release("b")
        with pytest.raises(NoSpace, match="does not fit into the size limit"):
            add(ModelStore(max_bytes=2 * size), "d", str(model))
        assert sorted(store.records()) == ["a", "b", "c"], "not even that which could have gone, for nothing"
        assert not store.folder_of("d").exists()
        for name in ("a", "c"):
            store.release(name)

    def test_a_model_larger_than_the_limit(self, store: ModelStore, model: Path, size: int) -> None:
        with pytest.raises(NoSpace, match="d alone is larger than the size limit"):
            add(ModelStore(max_bytes=size - 1), "d", str(model))
        assert sorted(store.records()) == ["a", "b", "c"], "nothing went for nothing"

    def test_links_take_no_room_and_are_not_sacrificed(self, store: ModelStore, model: Path, size: int) -> None:
        add(store, "link", str(model), link=True)
        self.age(store, "link")
        add(ModelStore(max_bytes=size), "d", str(model))
        assert sorted(store.records()) == ["d", "link"]

    def test_a_disk_without_room(self, store: ModelStore) -> None:
        record = Record(name="d", directory="d", origin=Origin(kind="local", place="x"), size_bytes=10**18)
        with pytest.raises(NoSpace, match=r"d needs 1e\+09 GB more and the disk of .* has .* free"):
            store.reserve(record, 10**18)
        assert store.records() == {}

    def test_what_a_killed_process_left_half_deleted_goes_with_the_next(self, store: ModelStore, model: Path) -> None:
        left = store.directory / ".gone-0123456789abcdef"
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"x")
        add(store, "d", str(model))
        assert not left.exists()

    @staticmethod
    def age(store: ModelStore, name: str) -> None:
        record = store.get(name)
        assert record is not None
        store.note(record.model_copy(update={"last_used_at": 1.0}))


class TestRegistryFile:
    """``models.json`` is written whole or not at all, and what it lost is found again."""

    @pytest.mark.parametrize("content", ["", "not json", "[]", '{"version": 2}', '{"models": {"a": 1}}'])
    def test_a_damaged_file_is_said_and_left_alone(self, store: ModelStore, model: Path, content: str) -> None:
        add(store, "ours", str(model))
        (store.directory / "models.json").write_text(content)
        for attempt in (store.records, lambda: add(store, "more", str(model)), lambda: store.remove("ours")):
            with pytest.raises(InvalidArgument, match=r"models\.json cannot be read; mend it, or delete it"):
                attempt()
        assert (store.directory / "models.json").read_text() == content
        assert store.folder_of("ours").is_dir()

    def test_models_are_found_again_without_it(self, store: ModelStore, model: Path) -> None:
        record = add(store, "far/ours", str(model))
        (store.directory / "models.json").unlink()
        again = store.get("far/ours")
        assert again is not None
        later = {"added_at": again.added_at, "last_used_at": again.last_used_at}
        assert again == record.model_copy(update=later)

    def test_a_directory_that_cannot_be_made_is_said(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(InvalidArgument, match=r"the models directory .* cannot be used: Not a directory"):
            add(ModelStore(tmp_path / "file" / "models"), "ours", str(model))

    def test_many_processes_write_at_once_and_nothing_is_lost(self, store: ModelStore) -> None:
        program = """
import sys
from discovery.registry.manifest import Origin
from far_node.models.store import ModelStore, Record
store = ModelStore()
for number in range(10):
    name = f"model-{sys.argv[1]}-{number}"
    store.note(Record(name=name, directory="x", origin=Origin(kind="local", place="x")))
"""
        running = [subprocess.Popen([sys.executable, "-c", program, str(number)]) for number in range(4)]
        assert [process.wait(60) for process in running] == [0] * 4
        assert len(store.records()) == 40

    def test_a_record_is_what_was_noted(self, store: ModelStore) -> None:
        record = Record(name="x", directory="/x", origin=Origin(kind="url", place="https://x"), blocks=((0, 2), (4, 5)))
        store.note(record)
        assert store.get("x") == record
