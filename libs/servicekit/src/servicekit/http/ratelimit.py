"""Rate limits as dependencies, with the RateLimit headers (draft-ietf-httpapi-ratelimit-headers)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable

from fastapi import Request

from servicekit import context, telemetry
from servicekit.errors import RATE_LIMITED, UNAVAILABLE, AppError
from servicekit.http.edge import RequestState
from servicekit.http.operations import STATE
from servicekit.logging import get_logger
from servicekit.redis import RedisClient, RedisUnavailable, Verdict

_log = get_logger(__name__)

LOOSE_FACTOR = 1_000
"""Loose limits (local profile) are the contract's numbers times this."""

KeyOf = Callable[[Request], str | Awaitable[str | None] | None]
_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}


def client_address(request: Request) -> str:
    """Key of a limit: the client's address as the gateway reports it."""
    state: RequestState = request.scope[STATE]
    return state.address


def principal_key(request: Request) -> str:
    """Key of a limit: who asks; the client's address where nobody is signed in."""
    principal = context.principal.get()
    return client_address(request) if principal is None else principal.subject


class RateLimit:
    """A dependency: ``dependencies=[Depends(RateLimit("auth.login", per_minute=5, key=client_address))]``.

    One of ``per_second``, ``per_minute``, ``per_hour``, ``per_day`` gives the contract's number. ``key`` makes from
    the request what is counted; None from it counts nothing. ``fail_closed``: 503 while Redis is down (login, spend);
    otherwise the request passes. Raises 429 ``request.rate_limited`` with Retry-After.
    """

    def __init__(
        self,
        name: str,
        *,
        per_second: int | None = None,
        per_minute: int | None = None,
        per_hour: int | None = None,
        per_day: int | None = None,
        burst: int | None = None,
        key: KeyOf = principal_key,
        fail_closed: bool = False,
    ) -> None:
        numbers = ((per_second, 1.0), (per_minute, 60.0), (per_hour, 3600.0), (per_day, 86400.0))
        given = [(number, seconds) for number, seconds in numbers if number]
        if len(given) != 1:
            raise ValueError(f"rate limit {name}: give exactly one of per_second, per_minute, per_hour, per_day")
        self.name = name
        self.requests, self.per_s = given[0]
        self.burst = burst
        self.key = key
        self.fail_closed = fail_closed
        self._refused = telemetry.counter("rate_limit_refused_total", "Requests refused by a rate limit.", ("limit",))

    async def __call__(self, request: Request) -> None:
        service = request.app.state.service
        redis: RedisClient | None = service.redis
        counted = self.key(request)
        if isinstance(counted, Awaitable):
            counted = await counted
        if counted is None:
            return
        factor = 1 if service.settings.rate_limits == "contract" else LOOSE_FACTOR
        requests, burst = self.requests * factor, self.burst and self.burst * factor
        try:
            if redis is None:
                raise RedisUnavailable("this service was given no Redis")
            verdict = await redis.limit(
                f"{service.name}:rl:{self.name}:{_short(counted)}", requests=requests, per_s=self.per_s, burst=burst
            )
        except RedisUnavailable as error:
            _log.warning("rate limit not checked", limit=self.name, closed=self.fail_closed, cause=str(error))
            if self.fail_closed:
                raise UNAVAILABLE("This cannot be checked at the moment. Try again shortly.") from error
            return
        headers = self._headers(verdict, requests)
        state: RequestState = request.scope[STATE]
        if verdict.allowed:
            state.headers += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            return
        self._refused.labels(self.name).inc()
        raise self._refusal(verdict, requests, headers)

    def _refusal(self, verdict: Verdict, requests: int, headers: dict[str, str]) -> AppError:
        unit = _UNITS[self.per_s]
        return RATE_LIMITED(
            f"Rate limit exceeded: {requests} per 1 {unit}", retry_after_s=verdict.retry_after_s, headers=headers
        )

    def _headers(self, verdict: Verdict, requests: int) -> dict[str, str]:
        reset = math.ceil(verdict.reset_s if verdict.allowed else verdict.retry_after_s)
        return {
            "RateLimit": f'"{self.name}";r={verdict.remaining};t={reset}',
            "RateLimit-Policy": f'"{self.name}";q={requests};w={int(self.per_s)}',
        }


def _short(key: str) -> str:
    """Keys of bounded length: what a client sends (an e-mail address) must not fill Redis."""
    return key if len(key) <= 64 and key.isascii() else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
