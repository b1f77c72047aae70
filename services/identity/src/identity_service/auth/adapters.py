"""Password hashing in a bounded pool of threads, and the count of failed sign-ins."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, cast

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from identity_service.errors import HASHING_BUSY, LOCKED_OUT
from servicekit.errors import UNAVAILABLE
from servicekit.logging import get_logger

T = TypeVar("T")
_log = get_logger(__name__)

# OWASP's floor: t=2, m=19 MiB, p=1. About 24 ms of CPU; the library's default would take 228 ms and 64 MiB.
_TIME_COST = 2
_MEMORY_KIB = 19 * 1024
# Hashes of accounts that were moved here from elsewhere; they are replaced at the next sign-in.
_BCRYPT = ("$2a$", "$2b$", "$2y$")
# bcrypt never looked at more.
_BCRYPT_BYTES = 72
_KNOWN_S = 30 * 24 * 3600


class Passwords(Protocol):
    """Hashes and verifies passwords."""

    def place(self) -> AbstractContextManager[None]:
        """Holds a place among those who may wait, for what asks others before it hashes. Raises `identity.busy` (503)
        where none is left."""

    async def hash(self, password: str, *, placed: bool = False) -> str:
        """The hash to store. Raises `identity.busy` (503) when too many wait and the caller holds no place."""

    async def verify(self, stored: str | None, password: str, *, placed: bool = False) -> bool:
        """Whether the password fits. `stored` None takes the same time and is False. Raises like `hash`."""

    def needs_rehash(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's."""


class Argon2Passwords:
    """Argon2id, and bcrypt for reading. At most `threads` hashes at once (19 MiB each), `queue` more may wait."""

    def __init__(self, threads: int, queue: int) -> None:
        self._hasher = PasswordHasher(time_cost=_TIME_COST, memory_cost=_MEMORY_KIB, parallelism=1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._limit = threads + queue
        self._pending = 0
        self._dummy = self._hasher.hash("the hash that unknown addresses are checked against")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        if self._pending >= self._limit:
            raise HASHING_BUSY()
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def hash(self, password: str, *, placed: bool = False) -> str:
        return await self._run(placed, self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str, *, placed: bool = False) -> bool:
        fits = await self._run(placed, self._verify, stored or self._dummy, password)
        return fits and stored is not None

    def needs_rehash(self, stored: str) -> bool:
        return stored.startswith(_BCRYPT) or self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Ends the threads after what runs now."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            if stored.startswith(_BCRYPT):
                return bcrypt.checkpw(password.encode()[:_BCRYPT_BYTES], stored.encode())
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError, ValueError):
            return False

    async def _run(self, placed: bool, function: Callable[..., T], *arguments: str) -> T:
        with contextlib.nullcontext() if placed else self.place():
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


class LoginGuard(Protocol):
    """Slows guessing down. Each attempt is counted before the password is looked at, so that a thousand at once are
    a thousand attempts."""

    async def begin(self, email: str, address: str) -> bool:
        """Counts an attempt; True for the last one that this pair of addresses has.

        Raises `identity.locked_out` (429) when there is none left, or when the account rests; 503 without the counts.
        """

    async def succeeded(self, email: str, address: str) -> None:
        """Forgets the pair's failures and knows the client address from now on."""


# KEYS: the pair's attempts, the account's attempts, the account's rest, "this pair has signed in before".
# ARGV: attempts of a pair, seconds they are kept, free attempts of an account, longest rest in ms.
# Answer: {0, attempts of the pair} or {1, ms to wait}.
_BEGIN = """
local tries = tonumber(redis.call('GET', KEYS[1]) or 0)
if tries >= tonumber(ARGV[1]) then return {1, redis.call('PTTL', KEYS[1])} end
local known = redis.call('EXISTS', KEYS[4]) == 1
if not known then
  local rest = redis.call('PTTL', KEYS[3])
  if rest > 0 then return {1, rest} end
end
tries = redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
if not known then
  local all = redis.call('INCR', KEYS[2])
  redis.call('EXPIRE', KEYS[2], ARGV[2])
  local over = all - tonumber(ARGV[3])
  if over > 0 then
    redis.call('SET', KEYS[3], 1, 'PX', math.min(1000 * 2 ^ math.min(over - 1, 20), tonumber(ARGV[4])))
  end
end
return {0, tries}
"""


class RedisLoginGuard:
    """Attempts per e-mail address and client address, and a rest of an account that is guessed from many places.

    Only the pair is ever locked, for `window_s` after its last attempt: a stranger elsewhere locks nobody out. An
    account that saw more than `free` attempts from places it does not know rests after each further one: 1 s, 2 s, …,
    `longest_rest_s` at most. A client address from which its owner signed in within 30 days never has to wait for
    that. Signing in fails closed: without Redis it answers 503.
    """

    def __init__(
        self, redis: Redis, failures: int, window_s: int, *, free: int = 20, longest_rest_s: float = 30.0
    ) -> None:
        self._redis = redis
        self._failures = failures
        self._window_s = window_s
        self._free = free
        self._longest_rest_ms = int(longest_rest_s * 1000)

    async def begin(self, email: str, address: str) -> bool:
        pair, account = _digest(f"{email}\n{address}"), _digest(email)
        keys = (_key("pair", pair), _key("account", account), _key("rest", account), _key("known", pair))
        limits = (self._failures, self._window_s, self._free, self._longest_rest_ms)
        try:
            refused, number = await cast("Awaitable[list[int]]", self._redis.eval(_BEGIN, len(keys), *keys, *limits))
        except (RedisError, OSError, TimeoutError) as error:
            raise UNAVAILABLE() from error
        if refused:
            raise LOCKED_OUT(retry_after_s=max(number, 1000) / 1000)
        return number >= self._failures

    async def succeeded(self, email: str, address: str) -> None:
        pair, account = _digest(f"{email}\n{address}"), _digest(email)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(_key("pair", pair), _key("rest", account))
                pipe.set(_key("known", pair), 1, ex=_KNOWN_S)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            # The session is open already; the counts run out by themselves.
            _log.warning("login_guard_not_cleared", cause=str(error))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _key(kind: str, digest: str) -> str:
    return f"identity:login-{kind}:{digest}"
