"""What outlives the process, in SQLite and in PostgreSQL."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from discovery.service import store as store_module
from discovery.service.errors import MirrorFull
from discovery.service.migrations import VERSION_TABLE, upgrade
from discovery.service.mirror import Entry, Mirror, Source
from discovery.service.schemas import Registration
from discovery.service.store import KEEP_IDLE_SECONDS, KEEP_SECONDS, Store
from discovery.service.tables import metadata
from discovery.web.errors import DatabaseUnavailable, InvalidSetting
from tests.discovery.service.doubles import owner_of, registration
from tests.support.documents import DIGEST, peer_of, signed_announcement, wallet_of

AT = 1_800_000_000


def said(name: str, at: float = AT, **changes: Any) -> Registration:
    return Registration.model_validate(registration(name, at=at, **changes))


def entry(name: str, issued_at: int, source: Source = Source.SENT, **changes: Any) -> Entry:
    mirror = Mirror("far")
    mirror.take(
        signed_announcement(name, issued_at=issued_at, expires_at=issued_at + 120, **changes), issued_at, source
    )
    (one,) = mirror.node(peer_of(name), issued_at)
    return one


async def test_migrations_lead_to_the_tables_that_the_code_knows(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
            },
        )
        return list(compare_metadata(context, metadata))

    async with store._writing() as connection:
        await connection.run_sync(upgrade)  # again: nothing changes
        assert await connection.run_sync(differences) == []


async def test_a_registration_counts_until_a_newer_one(store: Store) -> None:
    assert await store.find(peer_of("a")) is None
    assert await store.register(said("a"), owner_of("a"), AT)
    assert not await store.register(said("a", gpu_model="other"), owner_of("a"), AT), "it is as new"
    assert not await store.register(said("a", at=AT - 1), owner_of("a"), AT)
    assert await store.register(said("a", at=AT + 0.001, vram_gb=80), owner_of("b"), AT + 5)
    row = await store.find(peer_of("a"))
    assert row is not None
    assert (row.wallet, row.gpu_model, row.vram_gb, row.first_seen) == (owner_of("b"), "NVIDIA RTX 4090", 80, AT)
    assert row.is_registered
    assert await store.count_registered(owner_of("b"), without="") == 1
    assert await store.count_registered(owner_of("b"), without=peer_of("a")) == 0


async def test_a_heartbeat_counts_of_a_registered_node_and_only_once(store: Store) -> None:
    await store.saw({peer_of("seen"): wallet_of("seen")}, AT - 30, AT)
    assert not await store.heard(peer_of("nobody"), {}, AT, AT)
    assert not await store.heard(peer_of("seen"), {}, AT, AT), "it was seen, and has not registered"
    await store.register(said("a"), owner_of("a"), AT)
    assert await store.heard(peer_of("a"), {"is_healthy": False}, AT + 1, AT + 1)
    assert not await store.heard(peer_of("a"), {"is_healthy": True}, AT + 1, AT + 2)
    assert not await store.heard(peer_of("a"), {"is_healthy": True}, AT + 0.9, AT + 2)
    row = await store.find(peer_of("a"))
    assert row is not None
    assert row.says_it_is_ill(AT + 60, 120)
    assert not row.says_it_is_ill(AT + 122, 120), "that was long ago"


async def test_who_was_seen_for_how_long_whoever_looks(store: Store) -> None:
    both: dict[str, str] = {peer_of("a"): wallet_of("a"), peer_of("b"): wallet_of("b")}
    await store.saw(both, AT - 30, AT)  # new: known since now
    await store.saw(both, AT, AT + 30)
    await store.saw(both, AT + 10, AT + 40)  # another of us, whose clock is out of step
    await store.saw(both, AT + 5, AT + 35)
    await store.saw({peer_of("b"): wallet_of("b")}, AT + 500, AT + 530)
    a, b = await store.find(peer_of("a")), await store.find(peer_of("b"))
    assert a is not None
    assert b is not None
    assert (a.first_seen, a.last_seen, a.seen_seconds) == (AT, AT + 40, 40)
    assert (b.first_seen, b.last_seen, b.seen_seconds) == (AT, AT + 530, 70)
    assert not a.is_registered
    assert await store.registered_since(0) == []


async def test_there_is_an_end_to_notes_and_those_who_have_one_are_noted_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_SEEN", 2)
    three: dict[str, str] = {peer_of(name): wallet_of(name) for name in "abc"}
    assert await store.saw(three, AT, AT + 30) == 1
    assert await store.saw(three, AT + 30, AT + 60) == 1
    rows = [await store.find(peer_of(name)) for name in "abc"]
    assert sorted(row.seen_seconds for row in rows if row is not None) == [30, 30]


async def test_who_was_not_seen_for_a_month_is_forgotten(store: Store) -> None:
    await store.register(said("registered", at=AT), owner_of("registered"), AT)
    await store.register(said("heard", at=AT), owner_of("heard"), AT)
    three: dict[str, str] = {peer_of(name): wallet_of(name) for name in ("old", "registered", "heard")}
    await store.saw(three, AT - 10, AT)
    await store.saw(three, AT, AT + 10)
    await store.heard(peer_of("heard"), {}, AT + 100, AT + 100)
    await store.forget(AT + KEEP_SECONDS + 10)
    assert await store.find(peer_of("old")) is not None
    await store.forget(AT + KEEP_SECONDS + 50)
    there = [name for name in ("old", "registered", "heard") if await store.find(peer_of(name)) is not None]
    assert there == ["heard"]


async def test_who_has_registered_and_was_never_active_is_forgotten_after_a_day_and_there_is_an_end_to_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_SEEN", 1)
    await store.register(said("a"), owner_of("a"), AT)
    with pytest.raises(MirrorFull):
        await store.register(said("b"), owner_of("b"), AT)
    assert await store.register(said("a", at=AT + 1), owner_of("a"), AT)
    await store.forget(AT + KEEP_IDLE_SECONDS + 1)
    assert await store.find(peer_of("a")) is not None
    await store.forget(AT + KEEP_IDLE_SECONDS + 2)
    assert await store.register(said("b"), owner_of("b"), AT)


async def test_announcements_are_kept_in_their_newest_form_as_long_as_they_matter(store: Store) -> None:
    now = int(time.time())
    old, new, other = entry("a", now - 60), entry("a", now - 10), entry("b", now - 30, Source.DHT, state="leaving")
    await store.keep([new, other], now - 120)
    await store.keep([old], now - 120)
    assert await store.kept() == [("dht", other.signed.to_bytes()), ("sent", new.signed.to_bytes())]
    await store.keep([], now - 20)
    assert await store.kept() == [("sent", new.signed.to_bytes())]
    assert new.announcement.model_digest == DIGEST


async def test_thousands_are_written_in_one_go(store: Store) -> None:
    many: dict[str, str] = {peer_of(f"node {number}"): wallet_of("many") for number in range(1200)}
    await store.saw(many, AT, AT + 30)
    await store.saw(many, AT + 30, AT + 60)
    row = await store.find(peer_of("node 1199"))
    assert row is not None
    assert row.seen_seconds == 30


async def test_what_is_no_database_is_said_in_words(tmp_path: Path) -> None:
    for url in ("nonsense", "mongodb://x"):
        with pytest.raises(InvalidSetting):
            await Store.open(url)
    with pytest.raises(DatabaseUnavailable):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(DatabaseUnavailable):
        await Store.open("postgresql+asyncpg://nobody@127.0.0.1:1/none")
