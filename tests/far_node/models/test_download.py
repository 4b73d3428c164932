"""One file over HTTP: whole and right, or not there at all."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument, WeightsDamaged
from discovery.registry import hashes
from discovery.registry.hashes import HashCache
from discovery.registry.headers import TensorEntry, pack_header
from far_node.errors import ModelNotFound
from far_node.models.download import ATTEMPTS, Downloader, Expected, Request, part_of
from far_node.models.errors import DownloadFailed
from tests.support.swarm import run_python
from tests.support.web import Answer, answering

CONTENT = pack_header([TensorEntry("a", "U8", (300_000,), 0, 300_000)]) + bytes(i % 251 for i in range(300_000))
NAME = "model.safetensors"


def expected(content: bytes = CONTENT, name: str = NAME, *, by_git: bool = False) -> Expected:
    if by_git:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return Expected(name, len(content), git_sha1=git)
    return Expected(name, len(content), hashlib.sha256(content).hexdigest())


def of(content: bytes, asked: str | None) -> Answer:
    """As a server that knows ranges answers."""
    start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    if start >= len(content) and asked:
        return 416, {}, b""
    headers: dict[str, str | None] = (
        {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
    )
    return 206 if asked else 200, headers, content[start:]


@pytest.fixture
def downloader() -> Iterator[Downloader]:
    with Downloader(wait=lambda _: None) as opened:
        yield opened


class Fetch:
    """Fetches into a directory and counts the bytes it is told of."""

    def __init__(self, downloader: Downloader, directory: Path) -> None:
        self.downloader, self.target, self.told = downloader, directory / NAME, list[int]()

    def __call__(self, url: str, what: Expected | None = None) -> str:
        what = what or expected()
        self.target = self.target.with_name(what.name)
        return self.downloader.fetch(Request(f"{url}/{what.name}"), self.target, what, self.told.append)

    @property
    def part(self) -> Path:
        return part_of(self.target)

    def nothing_is_left(self) -> bool:
        return not self.target.exists() and not self.part.exists()


@pytest.fixture
def fetch(downloader: Downloader, tmp_path: Path) -> Fetch:
    return Fetch(downloader, tmp_path)


class TestWhole:
    """A file that arrives at once."""

    def test_it_gets_its_name_when_it_is_there(self, fetch: Fetch) -> None:
        with answering(lambda _path, asked: of(CONTENT, asked)) as url:
            assert fetch(url) == expected().sha256
        assert fetch.target.read_bytes() == CONTENT
        assert not fetch.part.exists()
        assert sum(fetch.told) == len(CONTENT)

    def test_its_hash_is_known_from_then_on(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        with answering(lambda _path, asked: of(CONTENT, asked)) as url:
            fetch(url)
        monkeypatch.setattr(hashes, "_hash", None)
        with HashCache() as cache:
            assert cache.sha256(fetch.target) == expected().sha256

    def test_a_file_known_by_its_name_in_git(self, fetch: Fetch) -> None:
        with answering(lambda _path, asked: of(CONTENT, asked)) as url:
            assert fetch(url, expected(by_git=True)) == expected().sha256

    def test_an_empty_file(self, fetch: Fetch) -> None:
        with answering(lambda _path, _asked: (500, {}, b"")) as url:
            fetch(url, expected(b"", "empty.txt"))
        assert fetch.target.read_bytes() == b""

    def test_a_server_that_moved_the_file_is_followed(self, fetch: Fetch) -> None:
        with (
            answering(lambda _path, asked: of(CONTENT, asked)) as there,
            answering(lambda _path, _asked: (302, {"Location": f"{there}/x"}, b"")) as here,
        ):
            fetch(here)
        assert fetch.target.read_bytes() == CONTENT

    def test_a_token_is_not_shown_to_another_server(self, downloader: Downloader, tmp_path: Path) -> None:
        seen: list[str | None] = []
        with (
            answering(lambda _path, asked: of(CONTENT, asked), seen) as there,
            answering(lambda _path, _asked: (302, {"Location": f"{there}/x"}, b""), seen) as here,
        ):
            request = Request(f"{here}/x", {"Authorization": "Bearer secret"})
            downloader.fetch(request, tmp_path / NAME, expected(), lambda _: None)
        assert seen == ["Bearer secret", None]


class TestDamaged:
    """What is not what was expected is deleted and named."""

    def refused(self, fetch: Fetch, content: bytes, what: Expected | None, words: str) -> None:
        with (
            answering(lambda _path, asked: of(content, asked)) as url,
            pytest.raises(WeightsDamaged, match=words) as failure,
        ):
            fetch(url, what)
        assert failure.value.facts["file"] == (what or expected()).name
        assert "it was deleted" in failure.value.message
        assert fetch.nothing_is_left()

    @pytest.mark.parametrize("by_git", [False, True])
    def test_other_bytes(self, fetch: Fetch, by_git: bool) -> None:
        other = CONTENT[:-1] + b"!"
        self.refused(fetch, other, expected(by_git=by_git), r"model\.safetensors is not what its manifest says")

    def test_more_bytes_than_announced_by_the_manifest(self, fetch: Fetch) -> None:
        self.refused(fetch, CONTENT + b"!", None, f"is longer than the {len(CONTENT)} bytes of its manifest")
        assert sum(fetch.told) == 0, "by the server's own word, before a byte of it was written"

    def test_more_bytes_than_the_server_announced(self, fetch: Fetch) -> None:
        with (
            answering(lambda _path, _asked: (200, {"Content-Length": None}, CONTENT * 20)) as url,
            pytest.raises(WeightsDamaged, match="is longer than"),
        ):
            fetch(url)
        assert fetch.nothing_is_left()
        assert max(itertools.accumulate(fetch.told)) <= len(CONTENT)

    def test_a_malformed_safetensors_file_with_the_right_hash(self, fetch: Fetch) -> None:
        junk = b"\xff" * 1000
        self.refused(fetch, junk, expected(junk), "is not a well-formed safetensors file")

    def test_a_file_that_is_not_gguf(self, fetch: Fetch) -> None:
        self.refused(fetch, b"PK\3\4 pickled", expected(b"PK\3\4 pickled", "model.gguf"), "is not a GGUF file")

    def test_a_json_file_that_would_overflow_the_stack_of_who_reads_it(self, fetch: Fetch) -> None:
        deep = b"[" * 100_000
        self.refused(fetch, deep, expected(deep, "tokenizer_config.json"), "is nested deeper than any file of a model")

    def test_a_small_file_may_be_anything_else(self, fetch: Fetch) -> None:
        with answering(lambda _path, asked: of(b"no JSON at all", asked)) as url:
            fetch(url, expected(b"no JSON at all", "notes.json"))

    def test_a_link_in_the_place_of_what_arrives_is_not_followed(self, fetch: Fetch, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        fetch.part.symlink_to(tmp_path / "precious")
        with (
            answering(lambda _path, asked: of(CONTENT, asked)) as url,
            pytest.raises(InvalidArgument, match="cannot be written"),
        ):
            fetch(url)
        assert (tmp_path / "precious").read_text() == "mine"


class TestCut:
    """A download that breaks off goes on from there."""

    def test_within_one_call(self, fetch: Fetch) -> None:
        asked: list[str | None] = []

        def cutting(_path: str, wanted: str | None) -> Answer:
            asked.append(wanted)
            status, headers, body = of(CONTENT, wanted)
            return status, {"Content-Length": str(len(body))} | headers, body[:100_000]

        with answering(cutting) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT
        assert asked == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]
        assert sum(fetch.told) == len(CONTENT)

    def test_in_another_call(self, fetch: Fetch) -> None:
        fetch.part.write_bytes(CONTENT[:1000])
        asked: list[str | None] = []

        def answer(_path: str, wanted: str | None) -> Answer:
            asked.append(wanted)
            return of(CONTENT, wanted)

        with answering(answer) as url:
            fetch(url)
        assert asked == ["bytes=1000-"]
        assert fetch.target.read_bytes() == CONTENT
        assert fetch.told[0] == 1000, "what was there counts at once"

    def test_what_arrived_in_full_is_not_asked_for(self, fetch: Fetch) -> None:
        fetch.part.write_bytes(CONTENT)
        with answering(lambda _path, _asked: (500, {}, b"")) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT

    @pytest.mark.parametrize(
        "there", [b"x" * 1000, CONTENT + b"x", b"x" * len(CONTENT)], ids=["begin", "long", "other"]
    )
    def test_what_cannot_be_gone_on_from_is_fetched_anew(self, fetch: Fetch, there: bytes) -> None:
        fetch.part.write_bytes(there)
        with answering(lambda _path, asked: of(CONTENT, asked)) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT
        assert sum(fetch.told) == len(CONTENT)

    def test_a_server_that_knows_no_ranges(self, fetch: Fetch) -> None:
        fetch.part.write_bytes(CONTENT[:1000])
        with answering(lambda _path, _asked: (200, {}, CONTENT)) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT

    def test_a_server_that_answers_with_another_range(self, fetch: Fetch) -> None:
        fetch.part.write_bytes(CONTENT[:1000])

        def answer(_path: str, asked: str | None) -> Answer:
            return of(CONTENT, "bytes=500-") if asked else of(CONTENT, None)

        with answering(answer) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT

    def test_a_server_that_never_ends_gets_a_few_tries(self, fetch: Fetch) -> None:
        tries = itertools.count(1)

        def answer(_path: str, asked: str | None) -> Answer:
            next(tries)
            status, headers, body = of(CONTENT, asked)
            return status, {"Content-Length": str(len(body))} | headers, b"" if asked else body[:1000]

        with answering(answer) as url, pytest.raises(DownloadFailed, match=r"model\.safetensors could not be fetched"):
            fetch(url)
        assert next(tries) <= ATTEMPTS + 3
        assert fetch.part.read_bytes() == CONTENT[:1000], "what arrived is kept"
        assert not fetch.target.exists()

    def test_a_server_that_lies_in_pieces_is_given_up(self, fetch: Fetch) -> None:
        lie = CONTENT[:-1] + b"!"

        def answer(_path: str, asked: str | None) -> Answer:
            status, headers, body = of(lie, asked)
            return status, {"Content-Length": str(len(body))} | headers, body[:150_000]

        with answering(answer) as url, pytest.raises(WeightsDamaged, match="is not what its manifest says"):
            fetch(url)
        assert fetch.nothing_is_left()


class TestServers:
    """What servers answer instead of a file."""

    @pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
    def test_a_file_that_is_not_there_for_us(self, fetch: Fetch, status: int) -> None:
        with answering(lambda _path, _asked: (status, {}, b"")) as url, pytest.raises(ModelNotFound, match=str(status)):
            fetch(url)

    @pytest.mark.parametrize("status", [408, 429, 500, 503])
    def test_a_server_in_trouble_is_asked_again(self, fetch: Fetch, status: int) -> None:
        answers: Iterator[Answer] = iter([(status, {}, b""), (status, {}, b"")])
        with answering(lambda _path, asked: next(answers, None) or of(CONTENT, asked)) as url:
            fetch(url)
        assert fetch.target.read_bytes() == CONTENT

    def test_but_not_for_ever(self, fetch: Fetch) -> None:
        with answering(lambda _path, _asked: (503, {}, b"")) as url, pytest.raises(DownloadFailed, match="HTTP 503"):
            fetch(url)

    @pytest.mark.parametrize("status", [204, 400, 418])
    def test_an_answer_that_means_nothing(self, fetch: Fetch, status: int) -> None:
        with (
            answering(lambda _path, _asked: (status, {}, b"")) as url,
            pytest.raises(DownloadFailed, match=str(status)),
        ):
            fetch(url)

    def test_an_encoding_that_was_not_asked_for(self, fetch: Fetch) -> None:
        with (
            answering(lambda _path, _asked: (200, {"Content-Encoding": "gzip"}, CONTENT)) as url,
            pytest.raises(DownloadFailed, match="encoded"),
        ):
            fetch(url)

    @pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://localhost/x", "http://127.0.0.1:1/x"])
    def test_a_move_to_somewhere_else_than_the_web(self, fetch: Fetch, location: str) -> None:
        with (
            answering(lambda _path, _asked: (302, {"Location": location}, b"")) as url,
            pytest.raises(DownloadFailed, match="could not be fetched"),
        ):
            fetch(url)
        assert not fetch.target.exists()

    def test_a_server_that_is_not_there(self, fetch: Fetch) -> None:
        with pytest.raises(DownloadFailed, match="could not be fetched: ") as failure:
            fetch("http://127.0.0.1:1")
        assert (failure.value.retry, failure.value.code) == (True, "download_failed")

    def test_a_small_answer_is_bounded(self, downloader: Downloader) -> None:
        with answering(lambda _path, _asked: (200, {}, b"x" * 1001)) as url:
            assert len(downloader.read(Request(f"{url}/x"), 1001)) == 1001
            with pytest.raises(DownloadFailed, match="more than 1000 bytes"):
                downloader.read(Request(f"{url}/x"), 1000)

    def test_the_size_of_a_file_is_asked_for(self, downloader: Downloader) -> None:
        with answering(lambda _path, _asked: (200, {}, b"x" * 1001)) as url:
            assert downloader.size_of(Request(f"{url}/x")) == 1001
        with (
            answering(lambda _path, _asked: (200, {"Content-Length": None}, b"x")) as url,
            pytest.raises(DownloadFailed, match="does not say how long"),
        ):
            downloader.size_of(Request(f"{url}/x"))


_WITH_LITTLE_SPACE = """
import resource, signal, sys
from pathlib import Path
from far_node.models.download import Downloader, Expected, Request
from discovery.protocol.errors import FarError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with Downloader() as downloader:
        downloader.fetch(Request(sys.argv[1]), Path(sys.argv[2]), Expected("x.bin", int(sys.argv[3])), lambda _: None)
except FarError as error:
    print(error.code, error.message)
"""


def test_a_disk_that_is_full_is_said_and_what_arrived_is_gone_on_from(fetch: Fetch, tmp_path: Path) -> None:
    """The limit of a file's size stands for that of the disk: the same call fails in the same place."""
    with answering(lambda _path, asked: of(CONTENT, asked)) as url:
        ended = run_python(_WITH_LITTLE_SPACE, f"{url}/x", str(fetch.target), str(len(CONTENT)))
        assert ended.out.startswith(f"no_space the disk of {tmp_path} is full"), ended.err
        assert not fetch.target.exists()
        assert fetch.part.read_bytes() == CONTENT[:100_000]
        fetch(url)
    assert fetch.target.read_bytes() == CONTENT
