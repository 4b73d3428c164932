"""Vouchers that must be refused, of every kind, and the channel they are tried on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from eth_account import Account

from far_mesh.marketplace.payments.vouchers import Channel, Domain, channel_id_of, sign

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DEPOSIT, PROMISED = 1_000_000, 400_000

Document = Mapping[str, object]


@dataclass(frozen=True)
class Bench:
    """A channel of which ``PROMISED`` of ``DEPOSIT`` units are promised, the keys of its session, and their escrow."""

    domain: Domain
    channel: Channel
    key: str
    user_key: str


def bench(chance: random.Random) -> Bench:
    """A fresh one."""
    user_key, key = (f"0x{chance.randbytes(32).hex()}" for _ in range(2))
    user, signer = Account.from_key(user_key).address, Account.from_key(key).address
    domain = Domain(31337, Account.from_key(chance.randbytes(32)).address)
    channel_id = channel_id_of(user, chance.randbytes(32))
    promised = sign(domain, channel_id, PROMISED, key)
    channel = Channel(channel_id, user, signer, DEPOSIT, promised_units=PROMISED, signature=promised.signature)
    return Bench(domain, channel, key, user_key)


def twin(signature: str) -> str:
    """The other signature of the same key for the same bytes: s mirrored, v turned."""
    raw = bytes.fromhex(signature[2:])
    mirrored = (CURVE_ORDER - int.from_bytes(raw[32:64])).to_bytes(32)
    return "0x" + (raw[:32] + mirrored + bytes([55 - raw[64]])).hex()


def good(on: Bench, units: int) -> dict[str, object]:
    """One that is right."""
    return dict(sign(on.domain, on.channel.channel_id, units, on.key).document())


Kind = Callable[[Bench, random.Random], Document]


def double_spent(on: Bench, chance: random.Random) -> Document:
    """The very voucher that was accepted last."""
    return good(on, PROMISED)


def stale(on: Bench, chance: random.Random) -> Document:
    """A lower one than that."""
    return good(on, chance.randint(1, PROMISED - 1))


def over_deposit(on: Bench, chance: random.Random) -> Document:
    """More than lies in the channel."""
    return good(on, DEPOSIT + chance.randint(1, 10**12))


def cross_channel(on: Bench, chance: random.Random) -> Document:
    """Signed by the right key for another channel, and sent as one of this."""
    other = sign(on.domain, channel_id_of(on.channel.user, chance.randbytes(32)), _units(chance), on.key)
    return other.document() | {"channelId": on.channel.channel_id}


def cross_chain(on: Bench, chance: random.Random) -> Document:
    """The same contract address on another chain."""
    other = Domain(chance.choice((1, 56, 97, 998, 999)), on.domain.escrow)
    return sign(other, on.channel.channel_id, _units(chance), on.key).document()


def other_escrow(on: Bench, chance: random.Random) -> Document:
    """Another escrow on the same chain."""
    other = Domain(on.domain.chain_id, Account.from_key(chance.randbytes(32)).address)
    return sign(other, on.channel.channel_id, _units(chance), on.key).document()


def forged(on: Bench, chance: random.Random) -> Document:
    """Signed by another key; the user's own is not the session's either."""
    key = chance.choice((on.user_key, f"0x{chance.randbytes(32).hex()}"))
    return sign(on.domain, on.channel.channel_id, _units(chance), key).document()


def raised(on: Bench, chance: random.Random) -> Document:
    """A right signature under a higher amount."""
    units = chance.randint(PROMISED + 1, DEPOSIT - 1)
    higher = chance.randint(units + 1, DEPOSIT)
    return good(on, units) | {"maxClaimableAmount": str(higher * 10**9)}


def flipped(on: Bench, chance: random.Random) -> Document:
    """A right signature with one bit changed."""
    document = good(on, _units(chance))
    raw = bytearray.fromhex(str(document["signature"])[2:])
    raw[chance.randrange(65)] ^= 1 << chance.randrange(8)
    return document | {"signature": "0x" + raw.hex()}


def mirrored(on: Bench, chance: random.Random) -> Document:
    """The twin of a right signature."""
    document = good(on, _units(chance))
    return document | {"signature": twin(str(document["signature"]))}


def noise(on: Bench, chance: random.Random) -> Document:
    """Random bytes where the signature should be."""
    return good(on, _units(chance)) | {"signature": "0x" + chance.randbytes(65).hex()}


def malformed(on: Bench, chance: random.Random) -> Document:
    """Not a voucher at all."""
    document = good(on, _units(chance))
    amount, signature = str(document["maxClaimableAmount"]), str(document["signature"])
    missing = chance.choice(sorted(document))
    broken: list[Document] = [
        {},
        {name: value for name, value in document.items() if name != missing},
        document | {"extra": 1},
        document | {"maxClaimableAmount": int(amount)},
        document
        | {"maxClaimableAmount": chance.choice(("", "0", "-1", "1e18", "0x10", "٣", f" {amount}", f"0{amount}"))},
        document | {"maxClaimableAmount": str(int(amount) + chance.randint(1, 10**9 - 1))},
        document | {"maxClaimableAmount": str(chance.choice((2**128, 10**60, 2**63 * 10**9)))},
        document
        | {"channelId": chance.choice((None, "", "0x", on.channel.channel_id[:-1], on.channel.channel_id + "0"))},
        document | {"channelId": on.channel.channel_id + "\n"},
        document
        | {"signature": chance.choice((None, 1, b"", "", "0x", signature[2:], signature[:-2], signature + "00"))},
        document | {"signature": [signature]},
    ]
    return chance.choice(broken)


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        double_spent,
        stale,
        over_deposit,
        cross_channel,
        cross_chain,
        other_escrow,
        forged,
        raised,
        flipped,
        mirrored,
        noise,
        malformed,
    )
}


def attempts(on: Bench, chance: random.Random, count: int) -> Iterator[tuple[str, Document]]:
    """``count`` vouchers that must be refused, all kinds in turn."""
    names = list(KINDS)
    for index in range(count):
        name = names[index % len(names)]
        yield name, KINDS[name](on, chance)


def _units(chance: random.Random) -> int:
    return chance.randint(PROMISED + 1, DEPOSIT)
