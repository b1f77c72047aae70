"""The health of the whole system: what every instance of every service says about itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2


class SystemHealth:
    """Asks each instance's ``/readyz`` at once and remembers the answer for a moment.

    ``urls``: service → base URLs of its instances. Times are seconds.
    """

    def __init__(self, urls: Mapping[str, Sequence[str]], version: str, timeout_s: float, cache_s: float) -> None:
        self._urls = urls
        self._version = version
        self._cache_s = cache_s
        self._client = httpx2.AsyncClient(timeout=timeout_s, trust_env=False)
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._answer: dict[str, Any] | None = None
        self._asked_at = 0.0

    async def close(self) -> None:
        await self._client.aclose()

    async def answer(self) -> dict[str, Any]:
        """``{status, version, services: {name: {status, ready, instances, failed?}}}``.

        ``status`` is ``healthy`` when every service has a ready instance and none is missing, else ``degraded``; that
        of a service is ``healthy``, ``degraded`` (some instances ready) or ``unhealthy``.
        """
        async with self._lock:
            if self._answer is None or time.monotonic() - self._asked_at >= self._cache_s:
                self._answer = await self._ask()
                self._asked_at = time.monotonic()
            return self._answer

    async def _ask(self) -> dict[str, Any]:
        asked = [(service, url) for service, urls in self._urls.items() for url in urls]
        results = await asyncio.gather(*(self._failure(url) for _, url in asked))
        services: dict[str, Any] = {}
        for service, urls in self._urls.items():
            failures = [result for (name, _), result in zip(asked, results, strict=True) if name == service]
            failed = [failure for failure in failures if failure is not None]
            ready = len(urls) - len(failed)
            status = "unhealthy" if not ready else "degraded" if failed else "healthy"
            services[service] = {"status": status, "ready": ready, "instances": len(urls)}
            if failed:
                services[service]["failed"] = sorted(set(failed))
        whole = all(service["status"] == "healthy" for service in services.values())
        return {"status": "healthy" if whole else "degraded", "version": self._version, "services": services}

    async def _failure(self, url: str) -> str | None:
        """Why an instance is not ready, in a word; None when it is. Addresses are not shown to the public."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.get(f"{url}/readyz")
        except (TimeoutError, httpx2.TimeoutException):
            return "timeout"
        except httpx2.HTTPError:
            return "unreachable"
        return None if answer.status_code == 200 else "not ready"
