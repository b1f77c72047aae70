"""The HTTP client for what lies outside (GitHub, Stripe, a JWKS): guarded, bounded, traced."""

from __future__ import annotations

import time
from typing import Any

import httpx2

from servicekit import context, telemetry
from servicekit.errors import DEADLINE, UNAVAILABLE

DEFAULT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0


class GuardedClient(httpx2.AsyncClient):
    """An ``httpx2.AsyncClient`` that refuses to run inside a unit of work.

    ``name`` stands in errors, metrics and spans. Raises RemoteCallInTransaction, and as AppError: UNAVAILABLE (503)
    when the other side cannot be reached, DEADLINE (504) when it does not answer in time. Redirects are not followed
    and proxies of the environment not used unless asked for; ``traceparent`` is sent only with ``propagate``.
    """

    def __init__(self, name: str, *, propagate: bool = False, **options: Any) -> None:
        options.setdefault("timeout", httpx2.Timeout(DEFAULT_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
        options.setdefault("trust_env", False)
        super().__init__(**options)
        self._name = name
        self._propagate = propagate
        self._durations = telemetry.histogram(
            "http_client_request_duration_seconds",
            "Duration of requests to other systems.",
            ("peer", "method", "status_class"),
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Sends one request; see the class."""
        context.assert_no_transaction(f"{self._name} ({request.method} {request.url.host})")
        outcome = "error"
        started = time.perf_counter()
        attributes = {"server.address": request.url.host, "http.request.method": request.method}
        try:
            with telemetry.span(f"{request.method} {self._name}", kind="client", attributes=attributes):
                if self._propagate:
                    telemetry.inject(request.headers)
                response = await super().send(request, **options)
            outcome = f"{response.status_code // 100}xx"
            return response
        except httpx2.TimeoutException as error:
            outcome = "timeout"
            raise DEADLINE(f"{self._name} did not answer in time.") from error
        except httpx2.TransportError as error:
            raise UNAVAILABLE(f"{self._name} cannot be reached.") from error
        finally:
            self._durations.labels(self._name, request.method, outcome).observe(time.perf_counter() - started)
