"""Redis: the client and the rate limiter. Holds caches, limits and presence only; flushing it loses nothing."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from servicekit.settings import ServiceSettings

MAX_CONNECTIONS = 50

# GCRA: one number per key, the time at which the bucket is empty again ("theoretical arrival time"). The key expires
# then, so memory is bounded by the keys that are really in use. The clock is Redis's, the same for every instance.
_GCRA = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then tat = now end
local window = interval * burst
local allowed_at = tat + interval * cost - window
if allowed_at > now then
  return {0, math.floor((window - (tat - now)) / interval), math.ceil(allowed_at - now), math.ceil(tat - now)}
end
tat = tat + interval * cost
local life = math.ceil(tat - now)
if life > 0 then redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', life) end
return {1, math.floor((window - (tat - now)) / interval), 0, life}
"""
_GCRA_SHA = hashlib.sha1(_GCRA.encode(), usedforsecurity=False).hexdigest()


class RedisUnavailable(Exception):
    """Redis did not answer in time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The limiter's answer. ``remaining`` requests now, ``retry_after_s`` until one is allowed, ``reset_s`` until
    all are."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    reset_s: float


class RedisClient:
    """The Redis of a process (a host part); connects at its first command.

    ``raw`` is the ``redis.asyncio`` client. Every command fails after half a second; it is repeated once,
    at once, where the connection was broken.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        # A service is also built where nothing is set, to be described; then it cannot start.
        self._address = settings.redis_url
        self.raw: Any = aioredis.Redis.from_url(
            self._address or "redis://unset",
            socket_connect_timeout=settings.redis_timeout_s,
            socket_timeout=settings.redis_timeout_s,
            max_connections=MAX_CONNECTIONS,
            # Connections of the pool are dead after a restart of Redis, and each is found out by a command only. What
            # is kept here bears a command that happens twice; one that timed out has used up its time.
            retry=Retry(NoBackoff(), 1, (RedisConnectionError,)),
            health_check_interval=30,
        )

    async def start(self) -> None:
        """Connects to nothing: a service starts without its Redis. ValueError when no address is set."""
        if self._address is None:
            raise ValueError("OMOIOS_REDIS_URL is not set")

    async def close(self) -> None:
        """Closes the connections."""
        await self.raw.aclose()

    async def limit(self, key: str, *, requests: int, per_s: float, burst: int | None = None, cost: int = 1) -> Verdict:
        """Takes ``cost`` of ``requests`` per ``per_s`` seconds for ``key``; ``burst`` of them may come at once.

        Raises RedisUnavailable when Redis does not answer.
        """
        size = burst or requests
        arguments = (1, key, per_s * 1000 / requests, size, cost)
        try:
            try:
                answer = await self.raw.evalsha(_GCRA_SHA, *arguments)
            except NoScriptError:
                answer = await self.raw.eval(_GCRA, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise RedisUnavailable(str(error)) from error
        allowed, remaining, wait_ms, reset_ms = cast("list[int]", answer)
        return Verdict(bool(allowed), size, max(0, remaining), math.ceil(wait_ms) / 1000, math.ceil(reset_ms) / 1000)
