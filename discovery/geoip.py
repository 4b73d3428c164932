"""Where addresses are, by a city database in MaxMind's format (GeoLite2, GeoIP2, DB-IP)."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import structlog
from geoip2.database import Reader
from geoip2.errors import AddressNotFoundError
from maxminddb import MODE_MEMORY, InvalidDatabaseError

from discovery.geo import Address, Place, Point, public_addresses
from discovery.protocol.errors import FarError, InvalidArgument

LOOK_SECONDS = 60.0
MOST_KM = 500
"""Of accuracy: a place that is less certain is the middle of a country, and worse than none."""
_MOST_REMEMBERED = 65_536
_BROKEN = (InvalidDatabaseError, FarError, TypeError, ValueError, LookupError, RecursionError, struct.error)
"""What reading a damaged file ends in."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DatabaseFacts:
    """What a database says of itself."""

    kind: str
    built_at: datetime
    ip_version: int
    node_count: int


_Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Open:
    """A database, the file it was read from, and what was looked up in it."""

    reader: Reader
    stamp: _Stamp
    found: dict[tuple[str, ...], Point | None] = field(default_factory=dict)


class GeoDatabase:
    """A city database in memory. A file that is replaced is read again: see :meth:`keep_fresh`.

    It is read whole, not mapped: whoever writes over a file that is mapped ends the process.

    Raises:
        InvalidArgument: the file cannot be read, or is no city database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self._open = self._read(self._stamp())
        self._given_up: _Stamp | None = None

    @property
    def facts(self) -> DatabaseFacts:
        """What it says of itself."""
        about = self._open.reader.metadata()
        built_at = datetime.fromtimestamp(about.build_epoch, UTC)
        return DatabaseFacts(about.database_type, built_at, about.ip_version, about.node_count)

    def locate(self, address: Address | str) -> Place | None:
        """Where an address is believed to be; None where that is not known, and for addresses that are not public.

        Raises:
            InvalidArgument: a text that is no address.
        """
        try:
            address = ip_address(address) if isinstance(address, str) else address
        except ValueError:
            raise InvalidArgument(f"{str(address)[:64]!r} is no IP address", param="address") from None
        return _look_up(self._open.reader, address) if address.is_global else None

    def point_of(self, maddrs: tuple[str, ...]) -> Point | None:
        """Where a node is that is reached at these multiaddrs.

        None where they name no public address, and where they name several in different places: one may be invented.
        """
        found = self._open.found
        if maddrs not in found:
            if len(found) >= _MOST_REMEMBERED:
                found.clear()
            places = {self.locate(address) for address in public_addresses(maddrs)}
            points = {None if place is None else place.point for place in places}
            found[maddrs] = points.pop() if len(points) == 1 else None
        return found[maddrs]

    def refresh(self) -> bool:
        """Read the file again if it is another. Whether it was read.

        What is there stays in use as long as the file is away or damaged.
        """
        stamp: _Stamp | None = None
        try:
            stamp = self._stamp()
            if stamp in (self._open.stamp, self._given_up):
                return False
            self._open = self._read(stamp)
        except InvalidArgument as error:
            log.warning("geoip_not_read", reason=error.message)
            self._given_up = stamp
            return False
        self._given_up = None
        log.info("geoip_read", built_at=self.facts.built_at.isoformat())
        return True

    async def keep_fresh(self, seconds: float = LOOK_SECONDS) -> None:
        """:meth:`refresh` once in so many seconds, beside everything else, until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.refresh)

    def _stamp(self) -> _Stamp:
        try:
            about = self.path.stat()
        except OSError as error:
            raise InvalidArgument(f"{self.path} cannot be read: {error.strerror}", param="geoip_db") from None
        return about.st_ino, about.st_size, about.st_mtime_ns

    def _read(self, stamp: _Stamp) -> _Open:
        try:
            reader = Reader(str(self.path), mode=MODE_MEMORY)
            kind = reader.metadata().database_type
        except OSError as error:
            raise InvalidArgument(f"{self.path} cannot be read: {error.strerror}", param="geoip_db") from None
        except _BROKEN:
            raise InvalidArgument(f"{self.path} is no database of addresses, or damaged", param="geoip_db") from None
        if "City" not in kind:
            raise InvalidArgument(f"{self.path} is of kind {kind}, and not a city database", param="geoip_db")
        return _Open(reader, stamp)


def _look_up(reader: Reader, address: Address) -> Place | None:
    try:
        found = reader.city(address)
        latitude, longitude = found.location.latitude, found.location.longitude
        accuracy_km = found.location.accuracy_radius
        if latitude is None or longitude is None or (accuracy_km or 0) > MOST_KM:
            return None
        return Place(
            latitude,
            longitude,
            country=found.country.iso_code,
            region=found.subdivisions.most_specific.name,
            city=found.city.name,
            accuracy_km=accuracy_km,
        )
    except AddressNotFoundError:
        return None
    except _BROKEN as error:
        log.warning("geoip_damaged", reason=type(error).__name__)
        return None
