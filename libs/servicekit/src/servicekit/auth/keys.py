"""The public keys of identity, fetched as a JWKS document and kept.

A token of an unknown key makes one refetch. A process has four of them to spare and gets one back every 30 s: garbage
tokens cannot turn every service into a load on identity, and a signing key that is turned over several times within
half a minute is known all the same. While identity is down the last good set serves for up to 24 h.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from typing import Any

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from servicekit.auth.errors import KEYS_UNAVAILABLE
from servicekit.tasks import cancel

REFETCH_INTERVAL_S = 30.0
"""Time in which a process gets back one fetch, while the last one succeeded."""
REFETCH_BURST = 4
"""Fetches that a process has to spare."""
RETRY_INTERVAL_S = 1.0
"""Least time between two fetches while the last one failed."""
REFRESH_AFTER_S = 300.0
"""Age at which a used set is refreshed in the background, so that a withdrawn key leaves."""
KEEP_LAST_GOOD_S = 24 * 3600.0
FETCH_TIMEOUT_S = 3.0
MAX_KEYS = 16

FetchJwks = Callable[[], Awaitable[Mapping[str, Any]]]

log = structlog.get_logger(__name__)


class JwksCache:
    """Key id → ES256 public key. `fetch` returns the JWKS document as a mapping and may fail with anything."""

    def __init__(self, fetch: FetchJwks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, ECKey] = {}
        self._good_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False
        self._spare = float(REFETCH_BURST)
        self._task: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> ECKey | None:
        """The public key named `kid`, None when identity does not publish it.

        Raises `auth.keys_unavailable` (503) when that cannot be told: nothing was fetched yet, or not for 24 h, or the
        key is unknown and identity cannot be asked.
        """
        now = self._clock()
        fresh = self._good_at is not None and now - self._good_at < KEEP_LAST_GOOD_S
        key = self._keys.get(kid) if fresh else None
        if key is not None:
            if self._good_at is not None and now - self._good_at > REFRESH_AFTER_S and self._may_fetch(now):
                self._start()
            return key
        if self._task is not None or self._may_fetch(now):
            await asyncio.shield(self._start())
            key = self._keys.get(kid)
            if key is not None and not self._failed:
                return key
        if self._failed or self._good_at is None:
            raise KEYS_UNAVAILABLE()
        return None

    async def refresh(self) -> bool:
        """Fetches now (joining a running fetch); whether it succeeded. For start-up and tests."""
        await asyncio.shield(self._start())
        return not self._failed

    async def close(self) -> None:
        """Ends a running fetch."""
        task, self._task = self._task, None
        if task is not None:
            await cancel([task])

    def _may_fetch(self, now: float) -> bool:
        if self._tried_at is None:
            return True
        if self._failed:
            return now - self._tried_at >= RETRY_INTERVAL_S
        return self._spared(now) >= 1

    def _spared(self, now: float) -> float:
        """Fetches that may be made at this moment."""
        gained = (now - self._tried_at) / REFETCH_INTERVAL_S if self._tried_at is not None else 0.0
        return min(float(REFETCH_BURST), self._spare + gained)

    def _start(self) -> asyncio.Task[None]:
        if self._task is None:
            now = self._clock()
            self._spare = max(0.0, self._spared(now) - 1)
            self._tried_at = now
            self._task = asyncio.create_task(self._load(), name="jwks-fetch", context=Context())
        return self._task

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = parse_jwks(await self._fetch())
        except Exception as error:
            self._failed = True
            log.warning("jwks_fetch_failed", error=repr(error), keys_kept=len(self._keys))
        else:
            self._keys = keys
            self._failed = False
            self._good_at = self._clock()
        finally:
            self._task = None


def parse_jwks(document: Mapping[str, Any]) -> dict[str, ECKey]:
    """The usable keys of a JWKS document: EC on P-256, with a `kid`, meant for signatures. Others are passed over.

    Raises ValueError when not one is usable.
    """
    keys: dict[str, ECKey] = {}
    listed = document.get("keys")
    for item in listed[:MAX_KEYS] if isinstance(listed, list) else []:
        if not isinstance(item, Mapping) or item.get("kty") != "EC" or item.get("crv") != "P-256":
            continue
        kid = item.get("kid")
        if (
            not isinstance(kid, str)
            or not kid
            or item.get("use", "sig") != "sig"
            or item.get("alg", "ES256") != "ES256"
        ):
            continue
        public = {name: item[name] for name in ("kty", "crv", "x", "y", "kid") if name in item}
        try:
            keys[kid] = ECKey.import_key(public)
        except (JoseError, ValueError, KeyError, TypeError):
            continue
    if not keys:
        raise ValueError("the JWKS document holds no usable ES256 key")
    return keys


def http_fetch(urls: str) -> FetchJwks:
    """Fetches the document with a connection of its own each time: it happens every few minutes at most.

    `urls`: the instances of identity, separated by spaces, asked in this order until one answers. They share the time
    of a fetch, so that one that hangs does not use it up.
    """
    instances = urls.split()

    async def fetch() -> Mapping[str, Any]:
        import httpx2

        timeout_s = FETCH_TIMEOUT_S / len(instances)
        async with httpx2.AsyncClient(timeout=timeout_s, trust_env=False, follow_redirects=False) as client:
            for number, url in enumerate(instances, 1):
                try:
                    response = await client.get(url, headers={"Accept": "application/json"})
                    response.raise_for_status()
                    break
                except httpx2.HTTPError:
                    if number == len(instances):
                        raise
            document = response.json()
        if not isinstance(document, dict):
            raise ValueError("the JWKS document is not an object")
        return document

    return fetch
