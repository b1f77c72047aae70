"""What the process knows of users' memberships: the replica table behind a cache of two seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Protocol

import structlog

from servicekit.auth.bounded import BoundedCache
from servicekit.auth.errors import MEMBERSHIPS_UNAVAILABLE
from servicekit.auth.principal import Membership, Memberships

CACHE_TTL_S = 2.0
CACHE_MAX = 20_000
REFRESH_BURST = 20
"""Refreshes by RPC that one user may cause at once; one more every `REFRESH_EVERY_S`. Someone walking through foreign
ids is refused from memory instead of keeping identity busy."""
REFRESH_EVERY_S = 0.5

FetchMemberships = Callable[[str], Awaitable[Sequence[Membership]]]
"""User id → the active memberships as identity has them now (RPC)."""

log = structlog.get_logger(__name__)


class MembershipSource(Protocol):
    """Where a process reads memberships: the replica table, or at identity its own tables."""

    async def memberships_of(self, user_id: str) -> Sequence[Membership]:
        """The user's active memberships. Opens and closes its own short transaction."""


class MembershipDirectory:
    """User id → memberships, loaded once per user however many requests wait for it.

    `fetch` asks identity; without it (identity itself) a refresh reads the source again.
    """

    def __init__(
        self,
        source: MembershipSource,
        fetch: FetchMemberships | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        ttl_s: float = CACHE_TTL_S,
        max_entries: int = CACHE_MAX,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._clock = clock
        self._cache: BoundedCache[str, Memberships] = BoundedCache(max_entries, ttl_s, clock)
        self._loading: dict[str, asyncio.Task[Memberships]] = {}
        self._budgets: BoundedCache[str, list[float]] = BoundedCache(
            max_entries, REFRESH_BURST * REFRESH_EVERY_S, clock
        )
        self._listeners: list[Callable[[str], None]] = []

    def cached(self, user_id: str) -> Memberships | None:
        """The memberships when they are in memory and at most two seconds old."""
        return self._cache.get(user_id)

    async def of(self, user_id: str) -> Memberships:
        """The memberships, at most two seconds old."""
        cached = self._cache.get(user_id)
        if cached is not None:
            return cached
        task = self._loading.get(user_id)
        if task is None:
            # An empty context: the load serves every waiting request and belongs to none of them.
            task = asyncio.create_task(self._load(user_id), name="memberships-load", context=Context())
            self._loading[user_id] = task
        return await asyncio.shield(task)

    async def refreshed(self, user_id: str, known: Memberships) -> Memberships | None:
        """The memberships as identity has them now, when they differ from `known`; None otherwise.

        None also when the user has used up its refreshes: then the refusal stands. Raises
        `auth.memberships_unavailable` (503) when identity cannot be asked: what is known here may be older than a
        membership that the caller has just been given, and a 404 that is not true would be taken for final.
        """
        if not self._may_refresh(user_id):
            return None
        try:
            fetch = self._fetch or self._source.memberships_of
            memberships = by_organization(await fetch(user_id))
        except Exception as error:
            log.warning("membership_refresh_failed", error=repr(error))
            raise MEMBERSHIPS_UNAVAILABLE() from error
        self._cache.put(user_id, memberships)
        return None if memberships == known else memberships

    def changed(self, user_id: str) -> None:
        """Forgets the user and tells the listeners; called when a change reached the replica."""
        self._cache.discard(user_id)
        self._loading.pop(user_id, None)
        for listener in self._listeners:
            listener(user_id)

    def on_changed(self, listener: Callable[[str], None]) -> None:
        """`listener(user_id)` after a change of that user's memberships reached this process."""
        self._listeners.append(listener)

    def clear(self) -> None:
        """Forgets all, after notifications may have been missed."""
        self._cache.clear()

    async def _load(self, user_id: str) -> Memberships:
        me = asyncio.current_task()
        try:
            memberships = by_organization(await self._source.memberships_of(user_id))
            # A change seen meanwhile has removed this task: what it read may be older than the change.
            if self._loading.get(user_id) is me:
                self._cache.put(user_id, memberships)
            return memberships
        finally:
            if self._loading.get(user_id) is me:
                del self._loading[user_id]

    def _may_refresh(self, user_id: str) -> bool:
        now = self._clock()
        budget = self._budgets.get(user_id)
        if budget is None:
            self._budgets.put(user_id, [REFRESH_BURST - 1.0, now])
            return True
        tokens = min(float(REFRESH_BURST), budget[0] + (now - budget[1]) / REFRESH_EVERY_S)
        budget[1] = now
        budget[0] = tokens - 1 if tokens >= 1 else tokens
        return tokens >= 1


def by_organization(memberships: Sequence[Membership]) -> Memberships:
    """Organization id → membership."""
    return {membership.organization_id: membership for membership in memberships}
