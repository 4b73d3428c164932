"""What a city database says is what is known; what it does not say stays unknown."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from discovery.geo import Place
from discovery.geoip import MOST_KM, GeoDatabase
from discovery.protocol.errors import InvalidArgument
from tests.support import mmdb

BERLIN = mmdb.city(52.5, 13.4, name="Berlin", country="DE", region="Land Berlin", accuracy_radius=20)
NETWORKS = {
    "8.8.8.0/24": BERLIN,
    "9.9.9.9/32": mmdb.city(35.7, 139.7),
    "2001:4860::/32": mmdb.city(-33.9, 151.2, name="Sydney", country="AU"),
    "1.1.1.0/24": mmdb.city(37.751, -97.822, country="US", accuracy_radius=MOST_KM + 1),
    "1.0.0.0/24": {"country": {"iso_code": "AU"}},
    "10.0.0.0/8": mmdb.city(1.0, 1.0),
    "4.4.4.0/24": mmdb.city(95.0, 13.0),
    "5.5.5.0/24": ["not", "a", "record"],
    "6.6.6.0/24": {"location": "Berlin"},
}
NODE = ("/ip4/9.9.9.9/tcp/31330",)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return mmdb.write(tmp_path / "city.mmdb", NETWORKS)


def test_an_address_is_where_the_database_says(file: Path) -> None:
    database = GeoDatabase(file)
    assert database.locate("8.8.8.8") == Place(52.5, 13.4, "DE", "Land Berlin", "Berlin", 20)
    assert database.locate("9.9.9.9") == Place(35.7, 139.7)
    assert database.locate("2001:4860:4860::8888") == Place(-33.9, 151.2, "AU", city="Sydney")
    facts = database.facts
    assert (facts.kind, facts.ip_version) == ("Test-City", 6)
    assert facts.built_at == datetime.fromtimestamp(mmdb.BUILT_AT, UTC)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("7.7.7.7", "it is not in it"),
        ("2001:db8::1", "nor is it there"),
        ("1.1.1.1", "only the middle of the country is known"),
        ("1.0.0.1", "the record has no coordinates"),
        ("10.0.0.1", "private addresses are anywhere"),
        ("127.0.0.1", "as are our own"),
        ("4.4.4.4", "that is not on Earth"),
        ("5.5.5.5", "that is no record"),
        ("6.6.6.6", "nor is that"),
    ],
)
def test_what_is_not_known_is_unknown(file: Path, address: str, why: str) -> None:
    assert GeoDatabase(file).locate(address) is None, why


@pytest.mark.parametrize("text", ["", "8.8.8", "google.com", "8.8.8.8/32", "x" * 999])
def test_what_is_no_address_is_refused(file: Path, text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no IP address"):
        GeoDatabase(file).locate(text)


def test_a_node_is_where_all_its_public_addresses_are(file: Path) -> None:
    database = GeoDatabase(file)
    near, elsewhere, nowhere = "/ip4/8.8.8.8/tcp/1", "/ip4/9.9.9.9/tcp/1", "/ip4/7.7.7.7/tcp/1"
    assert database.point_of(("/ip4/192.168.0.1/tcp/1", near, "/ip4/8.8.8.9/tcp/1")) == (52.5, 13.4)
    assert database.point_of((near, elsewhere)) is None, "one of them may be invented"
    assert database.point_of((near, nowhere)) is None
    assert database.point_of(("/ip4/192.168.0.1/tcp/1",)) is None


@pytest.mark.parametrize(
    "content", [b"", b"no database", b"\xab\xcd\xefMaxMind.com", b"\xab\xcd\xefMaxMind.com\xff\xff"]
)
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mmdb"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"broken\.mmdb is no database") as caught:
        GeoDatabase(path)
    assert caught.value.facts["param"] == "geoip_db"


def test_a_file_that_is_away_or_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read: No such file"):
        GeoDatabase(tmp_path / "none.mmdb")
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        GeoDatabase(tmp_path)
    country = mmdb.write(tmp_path / "country.mmdb", {"8.8.8.0/24": {"country": {"iso_code": "DE"}}}, "Test-Country")
    with pytest.raises(InvalidArgument, match="is of kind Test-Country, and not a city database"):
        GeoDatabase(country)


def test_a_damaged_database_says_unknown_and_never_anything_else(file: Path, tmp_path: Path) -> None:
    whole, dice, opened = file.read_bytes(), random.Random(1), 0
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        (tmp_path / "b.mmdb").write_bytes(broken[: dice.choice([len(broken), dice.randrange(len(broken))])])
        try:
            database = GeoDatabase(tmp_path / "b.mmdb")
        except InvalidArgument:
            continue
        opened += 1
        for address in ("8.8.8.8", "9.9.9.9", "2001:4860::1", "7.7.7.7", "6.6.6.6"):
            assert isinstance(database.locate(address), Place | None)
    assert opened


def test_a_file_that_is_replaced_is_read_again(file: Path, tmp_path: Path) -> None:
    database = GeoDatabase(file)
    assert database.locate("9.9.9.9") == Place(35.7, 139.7)
    assert database.point_of(NODE) == (35.7, 139.7)
    assert not database.refresh()
    os.replace(mmdb.write(tmp_path / "new", {"9.9.9.9/32": mmdb.city(1.5, 2.5)}), file)
    assert database.locate("9.9.9.9") == Place(35.7, 139.7), "until it is looked at"
    assert database.refresh()
    assert database.locate("9.9.9.9") == Place(1.5, 2.5)
    assert database.point_of(NODE) == (1.5, 2.5)
    assert not database.refresh()


def test_as_long_as_the_file_is_away_or_damaged_the_old_one_is_used(file: Path, tmp_path: Path) -> None:
    database, whole = GeoDatabase(file), file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", None):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        assert not database.refresh()
        assert not database.refresh()
        assert database.locate("9.9.9.9") == Place(35.7, 139.7)
    mmdb.write(file, {"9.9.9.9/32": mmdb.city(1.5, 2.5)})
    assert database.refresh()
    assert database.locate("9.9.9.9") == Place(1.5, 2.5)


async def test_it_is_looked_at_by_itself(file: Path, tmp_path: Path) -> None:
    database = GeoDatabase(file)
    keeping = asyncio.create_task(database.keep_fresh(0.01))
    try:
        os.replace(mmdb.write(tmp_path / "new", {"9.9.9.9/32": mmdb.city(1.5, 2.5)}), file)
        while database.locate("9.9.9.9") != Place(1.5, 2.5):
            await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
