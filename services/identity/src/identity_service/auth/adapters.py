"""Password hashing in a bounded pool of threads, and the count of failed sign-ins."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from identity_service.errors import HASHING_BUSY, LOCKED_OUT
from servicekit.errors import UNAVAILABLE

T = TypeVar("T")

# OWASP's floor: t=2, m=19 MiB, p=1. About 24 ms of CPU; the library's default would take 228 ms and 64 MiB.
_TIME_COST = 2
_MEMORY_KIB = 19 * 1024


class Passwords(Protocol):
    """Hashes and verifies passwords."""

    async def hash(self, password: str) -> str:
        """The hash to store. Raises `identity.busy` (503) when too many wait."""

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password fits. `stored` None takes the same time and is False. Raises `identity.busy`."""

    def needs_rehash(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""


class Argon2Passwords:
    """Argon2id with at most `threads` hashes at once and `queue` waiting: memory stays below threads × 19 MiB."""

    def __init__(self, threads: int, queue: int) -> None:
        self._hasher = PasswordHasher(time_cost=_TIME_COST, memory_cost=_MEMORY_KIB, parallelism=1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._limit = threads + queue
        self._pending = 0
        self._dummy = self._hasher.hash("the hash that unknown addresses are checked against")

    async def hash(self, password: str) -> str:
        return await self._run(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        fits = await self._run(self._verify, stored or self._dummy, password)
        return fits and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Ends the threads after what runs now."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        if self._pending >= self._limit:
            raise HASHING_BUSY()
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self._pending -= 1


class LoginGuard(Protocol):
    """Counts failed sign-ins of an address from one place."""

    async def check(self, email: str, address: str) -> None:
        """Raises `identity.locked_out` (429) after too many failures; 503 when the counts cannot be read."""

    async def failed(self, email: str, address: str) -> None:
        """Counts one more failure; the window starts anew."""

    async def succeeded(self, email: str, address: str) -> None:
        """Forgets the failures."""


class RedisLoginGuard:
    """Failures per e-mail address and client address, so that a stranger elsewhere cannot lock anyone out.

    Signing in fails closed: without Redis it answers 503.
    """

    def __init__(self, redis: Redis, failures: int, window_s: int) -> None:
        self._redis = redis
        self._failures = failures
        self._window_s = window_s

    async def check(self, email: str, address: str) -> None:
        key = self._key(email, address)
        try:
            count = await self._redis.get(key)
            if count is not None and int(count) >= self._failures:
                left = await self._redis.ttl(key)
                raise LOCKED_OUT(retry_after_s=float(max(left, 1)))
        except RedisError as error:
            raise UNAVAILABLE() from error

    async def failed(self, email: str, address: str) -> None:
        key = self._key(email, address)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incr(key)
                pipe.expire(key, self._window_s)
                await pipe.execute()
        except RedisError as error:
            raise UNAVAILABLE() from error

    async def succeeded(self, email: str, address: str) -> None:
        try:
            await self._redis.delete(self._key(email, address))
        except RedisError as error:
            raise UNAVAILABLE() from error

    def _key(self, email: str, address: str) -> str:
        return "identity:login:" + hashlib.sha256(f"{email}\n{address}".encode()).hexdigest()
