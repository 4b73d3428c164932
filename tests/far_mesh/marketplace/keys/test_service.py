"""Keys are shown once, kept as a hash, and stop when they are told to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import event, select, update

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.principal import Principal, Scope, TokenProof, roles_of, scopes_of
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Forbidden, KeyUnknown, TooManyKeys, Unauthorized
from far_mesh.marketplace.keys import service as keys
from far_mesh.marketplace.keys.schemas import NewKey
from far_mesh.marketplace.keys.service import MOST_KEYS, KeyService
from far_mesh.marketplace.keys.text import hash_of, new_key
from far_mesh.marketplace.tables import api_keys
from tests.support.documents import wallet_of

ANN, BOB = wallet_of("ann"), wallet_of("bob")
INFERENCE = frozenset({Scope.INFERENCE})
WANTED = NewKey("for the build", INFERENCE, None, None)


def signed_in(wallet: str = ANN, *, operates: bool = False) -> Principal:
    roles = roles_of(serves=False, operates=operates)
    return Principal(Wallet(wallet), roles, scopes_of(roles), TokenProof("1", now() + timedelta(hours=1)))


@pytest.fixture
def service(database: Database) -> KeyService:
    return KeyService(database, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """How far ahead of now it is."""
    ahead = [timedelta()]

    def later() -> datetime:
        return now() + ahead[0]

    monkeypatch.setattr(keys, "now", later)
    return ahead


async def test_a_key_stands_for_its_wallet(service: KeyService) -> None:
    made, text = await service.make(signed_in(), WANTED)
    found = await service.find(text)
    assert (found.key.id, found.key.wallet, found.key.scopes) == (made.id, ANN, INFERENCE)
    assert not found.serves


async def test_the_key_itself_is_kept_nowhere(service: KeyService, database: Database) -> None:
    made, text = await service.make(signed_in(), WANTED)
    async with database.reading() as connection:
        row = (await connection.execute(select(api_keys))).one()
    assert row.key_hash == hash_of(text)
    assert row.prefix == made.prefix == text[:15]
    assert text not in str(row)
    assert text[15:] not in str(row)


async def test_a_made_up_key_is_nobodys(service: KeyService) -> None:
    await service.make(signed_in(), WANTED)
    with pytest.raises(Unauthorized, match="no such"):
        await service.find(new_key())


async def test_a_revoked_key_is_refused_at_once_and_for_good(database: Database) -> None:
    service = KeyService(database, 60)
    made, text = await service.make(signed_in(), WANTED)
    await service.find(text)
    await service.revoke(ANN, made.id)
    with pytest.raises(Unauthorized, match="revoked"):
        await service.find(text)
    first = (await service.of_wallet(ANN))[0].revoked_at
    await service.revoke(ANN, made.id)
    assert (await service.of_wallet(ANN))[0].revoked_at == first is not None


async def test_another_gateway_learns_of_it_after_what_it_remembers(database: Database) -> None:
    here, there, forgetful = KeyService(database, 60), KeyService(database, 60), KeyService(database, 0)
    made, text = await here.make(signed_in(), WANTED)
    for one in (here, there, forgetful):
        await one.find(text)
    await here.revoke(ANN, made.id)
    assert (await there.find(text)).key.id == made.id
    with pytest.raises(Unauthorized):
        await forgetful.find(text)
    there.forget()
    with pytest.raises(Unauthorized):
        await there.find(text)


async def test_a_key_that_is_remembered_costs_no_statement(database: Database) -> None:
    service = KeyService(database, 60)
    _, text = await service.make(signed_in(), WANTED)
    await service.find(text)
    statements: list[str] = []
    event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *about: statements.append(about[2]))
    for _ in range(20):
        await service.find(text)
    assert statements == []


async def test_a_key_expires_even_while_it_is_remembered(database: Database, clock: list[timedelta]) -> None:
    service = KeyService(database, 60)
    wanted = NewKey("short", INFERENCE, now() + timedelta(minutes=1), None)
    _, text = await service.make(signed_in(), wanted)
    await service.find(text)
    clock[0] = timedelta(minutes=1)
    with pytest.raises(Unauthorized, match="expired"):
        await service.find(text)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=-1), timedelta(days=3_700)])
async def test_a_key_lives_from_now_on_and_not_for_ever(service: KeyService, ahead: timedelta) -> None:
    with pytest.raises(InvalidArgument, match="expires_at"):
        await service.make(signed_in(), NewKey("odd", INFERENCE, now() + ahead, None))


async def test_others_keys_are_neither_seen_nor_revoked(service: KeyService) -> None:
    made, text = await service.make(signed_in(), WANTED)
    assert await service.of_wallet(BOB) == []
    for wallet, key_id in ((BOB, made.id), (ANN, "key_" + "0" * 24), (ANN, "\x00"), (ANN, ""), (ANN, "x" * 5_000)):
        with pytest.raises(KeyUnknown):
            await service.revoke(wallet, key_id)
    assert (await service.find(text)).key.revoked_at is None


async def test_an_operators_scope_is_for_operators(service: KeyService) -> None:
    wanted = NewKey("all", frozenset(Scope), None, None)
    with pytest.raises(Forbidden):
        await service.make(signed_in(), wanted)
    made, _ = await service.make(signed_in(operates=True), wanted)
    assert Scope.OPERATOR in made.scopes


async def test_a_wallet_has_no_more_than_a_hundred_keys(service: KeyService, clock: list[timedelta]) -> None:
    made = [(await service.make(signed_in(), WANTED))[0] for _ in range(MOST_KEYS)]
    await service.revoke(ANN, made[0].id)
    with pytest.raises(TooManyKeys):
        await service.make(signed_in(), WANTED)
    await service.make(signed_in(BOB), WANTED)
    clock[0] = timedelta(days=31)
    await service.make(signed_in(), WANTED)
    assert made[0].id not in {key.id for key in await service.of_wallet(ANN)}


async def test_the_last_use_is_written_once_a_minute(
    service: KeyService, database: Database, clock: list[timedelta]
) -> None:
    made, text = await service.make(signed_in(), WANTED)
    assert made.last_used_at is None

    async def last() -> datetime | None:
        await service.find(text)
        return (await service.of_wallet(ANN))[0].last_used_at

    first = await last()
    clock[0] = timedelta(seconds=50)
    assert await last() == first is not None
    clock[0] = timedelta(seconds=70)
    second = await last()
    assert second is not None
    assert second > first
    async with database.writing() as connection:  # another gateway was quicker
        await connection.execute(update(api_keys).values(last_used_at=second + timedelta(seconds=30)))
    clock[0] = timedelta(seconds=131)
    assert await last() == second + timedelta(seconds=30)


async def test_a_refused_use_is_no_use(service: KeyService) -> None:
    made, text = await service.make(signed_in(), WANTED)
    await service.revoke(ANN, made.id)
    with pytest.raises(Unauthorized):
        await service.find(text)
    assert (await service.of_wallet(ANN))[0].last_used_at is None
