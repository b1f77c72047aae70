"""Requests through the gateway: every one is noted, and an operation is asked again until its outcome is known."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.faults.history import History, Operation, Outcome, Request

KEPT_CHARS = 600
# Pauses between the attempts of a client that does not give up; together about 25 s.
PAUSES_S = (0.2, 0.4, 0.8, 1.5, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0)
NOT_EXECUTED = (429,)
IN_FLIGHT = "idempotency.in_flight"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` 0: no answer."""

    status: int
    document: Any
    error: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str:
        return str(self.document.get("code", "")) if isinstance(self.document, dict) else ""

    @property
    def refused(self) -> bool:
        """A definite no: the request was understood and had no effect."""
        return 400 <= self.status < 500 and self.status not in (408, *NOT_EXECUTED) and self.code != IN_FLIGHT


class Caller:
    """An HTTP client of the gateway that writes the history."""

    def __init__(self, url: str, history: History) -> None:
        self.history = history
        self.open: set[int] = set()
        """Requests under way."""
        self._client = httpx2.AsyncClient(
            base_url=f"{url}/api/v1",
            timeout=httpx2.Timeout(40.0, connect=5.0),
            limits=httpx2.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=2.0),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def request(
        self,
        kind: str,
        method: str,
        path: str,
        token: str = "",
        body: Any = None,
        *,
        key: str = "",
        timeout_s: float | None = None,
    ) -> Answer:
        """One request, noted. Never raises for a missing answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if key:
            headers["Idempotency-Key"] = key
        # The service is told by the first part of the path; the load uses one path prefix per service.
        note = Request(self.history.now(), 0.0, path.split("/", 2)[1].partition("?")[0], kind, 0)
        options: dict[str, Any] = {} if timeout_s is None else {"timeout": timeout_s}
        self.open.add(id(note))
        try:
            answer = await self._client.request(method, path, headers=headers, json=body, **options)
        except httpx2.HTTPError as error:
            note.took = self.history.now() - note.at
            note.body = type(error).__name__
            self.history.requests.append(note)
            return Answer(0, None, f"{type(error).__name__}: {error}")
        finally:
            self.open.discard(id(note))
        # A cookie of a sign-in must not sign other users' requests.
        self._client.cookies.clear()
        note.took = self.history.now() - note.at
        note.status = answer.status_code
        note.content_type = answer.headers.get("content-type", "")
        note.retry_after = "retry-after" in answer.headers
        if not answer.is_success:
            note.body = answer.text[:KEPT_CHARS]
        self.history.requests.append(note)
        try:
            document = answer.json() if answer.content else None
        except json.JSONDecodeError:
            document = None
        return Answer(answer.status_code, document)

    async def operate(
        self,
        operation: Operation,
        method: str,
        path: str,
        token: str,
        body: Any,
        *,
        keyed: bool = True,
        patient: bool = True,
        timeout_s: float | None = None,
    ) -> Answer:
        """Carry an operation out. A patient client asks again, with the same Idempotency-Key, until it is answered.

        A refusal after an unanswered attempt proves nothing about that attempt: it may still be running.
        """
        unknown = False
        pauses = (*PAUSES_S, 0.0) if patient else (0.0,)
        answer = Answer(0, None)
        for pause in pauses:
            operation.attempts += 1
            answer = await self.request(
                operation.kind,
                method,
                path,
                token,
                body,
                key=operation.id if keyed else "",
                timeout_s=timeout_s,
            )
            if answer.ok or answer.refused:
                break
            unknown = unknown or answer.status not in NOT_EXECUTED
            if pause:
                await asyncio.sleep(pause)
        outcome: Outcome = "ok" if answer.ok else "info" if unknown else "fail"
        self.history.end(operation, outcome, answer.status, {})
        return answer
