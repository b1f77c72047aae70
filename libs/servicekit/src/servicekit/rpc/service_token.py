"""The token with which this service calls others.

Its secret is exchanged at identity for a short-lived token, which is renewed at half of its life, one exchange at a
time. While identity is down the old token serves until it expires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Protocol

import structlog

from servicekit.clock import wall_s
from servicekit.errors import AppError
from servicekit.rpc.wire import PEER_UNAVAILABLE
from servicekit.tasks import cancel

RETRY_INTERVAL_S = 1.0
"""Least time between two exchanges after one has failed."""
SAFETY_S = 5.0
"""A token this close to its end is no longer sent: it could expire on the way."""

Exchange = Callable[[], Awaitable[tuple[str, float]]]
"""Returns a token and when it expires (Unix seconds)."""

log = structlog.get_logger(__name__)


class TokenSource(Protocol):
    """Gives the token of each outgoing call."""

    async def token(self) -> str:
        """A token that is valid now. Raises UNAVAILABLE when none can be had."""

    def rejected(self, token: str) -> None:
        """The peer refused this token; the next call must not send it again."""


class FixedToken:
    """A token that never changes; for tests and for identity's own calls."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """The token."""
        return self._token

    def rejected(self, token: str) -> None:
        """A fixed token cannot be renewed."""


class ServiceTokenSource:
    """Exchanges the service's secret by `exchange` and keeps the token. `clock` is the wall clock, Unix seconds."""

    def __init__(self, exchange: Exchange, *, clock: Callable[[], float] = wall_s) -> None:
        self._exchange = exchange
        self._clock = clock
        self._token: str | None = None
        self._expires_at = 0.0
        self._renew_at = 0.0
        self._failed_at: float | None = None
        self._failure: AppError | None = None
        self._task: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """A token that is valid now; waits for identity only where there is none."""
        now = self._clock()
        if self._token is not None and now < self._expires_at - SAFETY_S:
            if now >= self._renew_at:
                self._start(now)
            return self._token
        task = self._start(now)
        if task is not None:
            await asyncio.shield(task)
        if self._token is None or self._clock() >= self._expires_at - SAFETY_S:
            raise self._failure or PEER_UNAVAILABLE(peer="identity")
        return self._token

    def rejected(self, token: str) -> None:
        """Forgets the token, so that the next call exchanges the secret anew (identity's keys were replaced)."""
        if token == self._token:
            self._token = None

    def warm_up(self) -> None:
        """Begins the first exchange without waiting for it, and tries again until there is a token."""
        if self._token is None and self._warming is None:
            self._warming = asyncio.create_task(self._warm(), name="service-token-warm-up", context=Context())

    async def close(self) -> None:
        """Ends a running exchange."""
        tasks = [task for task in (self._warming, self._task) if task is not None]
        self._warming = self._task = None
        await cancel(tasks)

    def _start(self, now: float) -> asyncio.Task[None] | None:
        if self._task is None:
            if self._failed_at is not None and 0 <= now - self._failed_at < RETRY_INTERVAL_S:
                return None
            # An empty context: the renewal serves all callers and must not end with the deadline of the first.
            self._task = asyncio.create_task(self._renew(), name="service-token", context=Context())
        return self._task

    async def _warm(self) -> None:
        while self._token is None:
            task = self._start(self._clock())
            if task is not None:
                await asyncio.shield(task)
            if self._token is None:
                await asyncio.sleep(RETRY_INTERVAL_S)

    async def _renew(self) -> None:
        try:
            token, expires_at = await self._exchange()
        except Exception as error:
            self._failed_at = self._clock()
            self._failure = PEER_UNAVAILABLE(peer="identity")
            log.warning("service_token_not_renewed", error=repr(error), usable=self._token is not None)
        else:
            now = self._clock()
            self._token, self._expires_at = token, expires_at
            self._renew_at = now + (expires_at - now) / 2
            self._failed_at = self._failure = None
        finally:
            self._task = None
