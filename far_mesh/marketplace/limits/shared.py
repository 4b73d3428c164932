"""Windows in Redis, which several gateways share. One script decides, by the server's clock, and nobody comes between.

Per window there is a sorted set of entries by the microsecond in which they were taken, and a hash of their amounts,
with the sum of all under ``used``. Both are gone a minute after the last entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from discovery.web.windows import PERIOD_US, Memory, Share, Standing, Verdict

PREFIX = "far:limit:"
TIMEOUT_SECONDS = 1.0
AWAY_SECONDS = 2.0
CONNECTIONS = 16

log = structlog.get_logger(__name__)

# KEYS: set and hash of each window. ARGV: the time or '', the period, the entry, then limit and amount of each window.
_TAKE = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local period, entry = tonumber(ARGV[2]), ARGV[3]
local wait, used = 0, {}
for i = 1, #KEYS / 2 do
  local set, hash = KEYS[2 * i - 1], KEYS[2 * i]
  local limit, amount = tonumber(ARGV[2 * i + 2]), tonumber(ARGV[2 * i + 3])
  local last_gone = string.format('%.0f', now - period)
  local gone = redis.call('ZRANGEBYSCORE', set, '-inf', last_gone)
  for _, one in ipairs(gone) do
    redis.call('HINCRBY', hash, 'used', -tonumber(redis.call('HGET', hash, one) or 0))
    redis.call('HDEL', hash, one)
  end
  if #gone > 0 then redis.call('ZREMRANGEBYSCORE', set, '-inf', last_gone) end
  used[i] = tonumber(redis.call('HGET', hash, 'used') or 0)
  local missing, first = used[i] + amount - limit, 0
  while missing > 0 do
    local one = redis.call('ZRANGE', set, first, first, 'WITHSCORES')
    if not one[1] then  -- the server ran out of memory and dropped the set: the hash will be gone in a minute too
      wait, missing = period, 0
    else
      missing = missing - tonumber(redis.call('HGET', hash, one[1]) or 0)
      if missing <= 0 then wait = math.max(wait, tonumber(one[2]) + period - now) end
      first = first + 1
    end
  end
end
local answer = {wait}
for i = 1, #KEYS / 2 do
  local set, hash, amount = KEYS[2 * i - 1], KEYS[2 * i], tonumber(ARGV[2 * i + 3])
  if wait == 0 then
    redis.call('ZADD', set, string.format('%.0f', now), entry)
    redis.call('HSET', hash, entry, ARGV[2 * i + 3])
    used[i] = redis.call('HINCRBY', hash, 'used', ARGV[2 * i + 3])
    redis.call('PEXPIRE', set, math.ceil(period / 1000))
    redis.call('PEXPIRE', hash, math.ceil(period / 1000))
  end
  local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')
  table.insert(answer, used[i])
  table.insert(answer, last[2] and tonumber(last[2]) + period - now or 0)
end
return answer
"""

_PUT_RIGHT = """
local before = redis.call('HGET', KEYS[2], ARGV[1])
if not before then return end
redis.call('HINCRBY', KEYS[2], 'used', tonumber(ARGV[2]) - tonumber(before))
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
end
"""


class Shared:
    """Windows in Redis; while it does not answer, in this process alone.

    A gateway that cannot ask counts by itself, with the same limits: nobody is refused for it, and nobody is without
    limits. It asks again some seconds later.
    """

    def __init__(self, url: str, clock: Callable[[], int] | None = None) -> None:
        """``clock`` None: that of the server, which all gateways have in common."""
        self._clock = clock
        self._redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._take = self._redis.register_script(_TAKE)
        self._put_right = self._redis.register_script(_PUT_RIGHT)
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._alone = Memory() if clock is None else Memory(clock)
        self._away_until = 0.0
        self._is_away = False

    async def take(self, entry: str, shares: Sequence[Share]) -> Verdict:
        """Count an act in all its windows, or in none."""
        if not shares:
            return Verdict(0, ())
        keys = [key for share in shares for key in _keys(share.window)]
        amounts = [number for share in shares for number in (share.limit, share.amount)]
        at = "" if self._clock is None else self._clock()
        answer = await self._ask(self._take, keys, [at, PERIOD_US, entry, *amounts])
        if answer is None:
            return await self._alone.take(entry, shares)
        wait, *facts = answer
        found = zip(shares, facts[::2], facts[1::2], strict=True)
        return Verdict(wait, tuple(Standing(share.limit, used, reset) for share, used, reset in found))

    async def put_right(self, entry: str, window: str, amount: int) -> None:
        """The entry turned out to be of this amount."""
        await self._alone.put_right(entry, window, amount)  # which does nothing where it was not taken here
        await self._ask(self._put_right, _keys(window), [entry, amount])

    async def close(self) -> None:
        """Hang up."""
        await self._redis.aclose()

    async def _ask(self, script: Callable[..., object], keys: list[str], arguments: list[object]) -> list[int] | None:
        """What a script says; None while nobody answers."""
        async with self._room:
            if monotonic() < self._away_until:
                return None
            try:
                answer = await script(keys=keys, args=arguments)  # type: ignore[misc]
            except (RedisError, OSError) as error:
                self._went_away(error)
                return None
        if self._is_away:
            self._is_away = False
            log.info("limits_shared_again")
        return answer or []

    def _went_away(self, error: Exception) -> None:
        self._away_until = monotonic() + AWAY_SECONDS
        if not self._is_away:
            self._is_away = True
            log.warning("limits_not_shared", error=type(error).__name__)


def _keys(window: str) -> list[str]:
    """The two keys of a window."""
    return [f"{PREFIX}{window}", f"{PREFIX}{window}:amounts"]
