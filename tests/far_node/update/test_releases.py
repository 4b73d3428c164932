"""Which version comes next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.version import Version

from discovery.protocol.errors import FarError, InvalidArgument
from far_node.update.errors import UpdateRefused
from far_node.update.options import UpdateOptions
from far_node.update.releases import MAX_LIST_BYTES, Listed, Release, listed, newest, read_releases, sign_releases
from tests.support.documents import key_of, peer_of
from tests.support.standin import wheel

CURRENT = Version("0.2.0")


def releases(*versions: str) -> list[Release]:
    return [Release(Version(version), ("0" * 64,)) for version in versions]


def signed(*versions: str, by: str = "publisher") -> bytes:
    return sign_releases([Listed(version=version, files={"a.whl": "0" * 64}) for version in versions], key_of(by))


def test_the_newest_of_the_channel_is_taken() -> None:
    offered = releases("0.1.9", "0.3.0", "0.10.0", "0.11.0rc1", "0.12.0.dev1")
    stable = newest(offered, CURRENT, "stable", ())
    assert stable is not None
    assert stable.version == Version("0.10.0")
    pre = newest(offered, CURRENT, "pre", ())
    assert pre is not None
    assert pre.version == Version("0.12.0.dev1")


def test_nothing_older_and_nothing_that_failed_is_taken() -> None:
    assert newest(releases("0.1.0", "0.2.0", "0.2.0rc1"), CURRENT, "pre", ()) is None
    assert newest(releases("0.3.0"), CURRENT, "stable", [Version("0.3.0")]) is None


def test_a_list_is_what_its_publisher_signed() -> None:
    (release,) = read_releases(signed("0.3.0"), peer_of("publisher"))
    assert release == Release(Version("0.3.0"), ("0" * 64,))


def changed(data: bytes) -> bytes:
    said = json.loads(data)
    return json.dumps(said | {"body": said["body"].replace("0" * 64, "1" * 64)}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (signed("0.3.0", by="thief"), "is signed by"),
        (changed(signed("0.3.0")), "the signature is not"),
        (b"", "not a signed document"),
        (b"[" * 100_000, "not a signed document"),
        (b" " * (MAX_LIST_BYTES + 1), "too long"),
    ],
    ids=["another's", "changed", "empty", "deep", "long"],
)
def test_what_is_not_signed_by_him_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(UpdateRefused, match=words):
        read_releases(data, peer_of("publisher"))


@pytest.mark.parametrize("wrong", [{"version": "next"}, {"files": {}}, {"files": {"a.whl": "0" * 63 + "G"}}])
def test_a_signed_list_of_another_shape_is_refused(wrong: dict[str, object]) -> None:
    one = {"version": "0.3.0", "files": {"a.whl": "0" * 64}} | wrong
    said = Listed.model_construct(**one)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="malformed"):
        read_releases(sign_releases([said], key_of("publisher")), peer_of("publisher"))


def test_wheels_become_releases(tmp_path: Path) -> None:
    files = [wheel(tmp_path, "0.3.0"), wheel(tmp_path, "0.4.0")]
    assert [one.version for one in listed(files)] == ["0.3.0", "0.4.0"]
    for name in ("far_mesh.whl", "torch-2.13.0-py3-none-any.whl", "far_mesh-0.5.0-py3-none-any.whl"):
        with pytest.raises(InvalidArgument):
            listed([tmp_path / name])


@pytest.mark.parametrize(
    "wrong",
    [{"releases": "list.json"}, {"publisher": peer_of("publisher")}],
    ids=["a list of nobody", "a publisher of nothing"],
)
def test_a_list_and_its_publisher_need_each_other(wrong: dict[str, str]) -> None:
    with pytest.raises(FarError, match="need each other"):
        UpdateOptions(**wrong)  # type: ignore[arg-type]
