"""The public API as the runner uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from agents_service.runners import rules
from agents_service.runners.rules import Standing, Verdict
from agents_service.runners.settings_adapters import RunnerSettings

CONNECT_S = 5.0
ANSWER_S = 30.0


class Refused(Exception):
    """The API refuses for good: the runner is not welcome, or the request is wrong."""


class Over(Exception):
    """The attempt is over for this sandbox: superseded, cancelled, ended or revoked."""


class Gone(Exception):
    """The agent is no more: the runner has to join anew."""


class Waiting(Exception):
    """The agent takes no tasks now; somebody may open it again."""


class Unreachable(Exception):
    """No usable answer now; asking again makes sense."""


class Api:
    """One connection pool to the gateway; knows the user's credential until the agent has its own token."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._client = httpx2.AsyncClient(
            base_url=settings.url.rstrip("/"),
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=settings.slots * 4 + 8, max_keepalive_connections=settings.slots + 4),
            trust_env=False,
        )
        self.agent_id = ""
        self._agent_token = ""

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def call(
        self, method: str, path: str, token: str, body: Any = None, *, wait_s: float = 0.0, raw: bytes | None = None
    ) -> tuple[int, Any]:
        """`(status, document)` of one request. Raises Unreachable without an answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content: dict[str, Any] = {}
        if raw is not None:
            headers["Content-Type"] = "application/json"
            content["content"] = raw
        elif body is not None:
            content["json"] = body
        try:
            answer = await self._client.request(
                method,
                f"/api/v1{path}",
                headers=headers,
                timeout=httpx2.Timeout(ANSWER_S + wait_s, connect=CONNECT_S),
                **content,
            )
        except httpx2.HTTPError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        try:
            document = answer.json()
        except ValueError:
            document = {}
        return answer.status_code, document

    async def register(self) -> Mapping[str, Any]:
        """Join: a new agent with a token of its own. Raises Refused, Unreachable."""
        settings = self._settings
        credential = await self._credential()
        body = {
            "agent_type": "worker",
            "capabilities": settings.labels,
            "capacity": settings.slots,
            "tags": ["runner", settings.name],
            "organization_id": settings.organization,
        }
        status, document = await self.call("POST", "/agents/register", credential, body)
        if status != 201:
            raise _failure(status, document)
        self.agent_id, self._agent_token = document["agent_id"], document["token"]
        return document  # type: ignore[no-any-return]

    async def heartbeat(self, sequence_number: int, status: str, task_id: str | None) -> None:
        """Say that the runner lives. Raises Gone, Waiting, Unreachable."""
        body = {
            "agent_id": self.agent_id,
            "sequence_number": sequence_number,
            "status": status,
            "current_task_id": task_id,
        }
        code, document = await self.call("POST", f"/agents/{self.agent_id}/heartbeat", self._agent_token, body)
        _check_agent("heartbeat", code, document)
        if document.get("token"):
            self._agent_token = document["token"]

    async def claim(self, slots: int, wait_s: float, isolation: str) -> Mapping[str, Any]:
        """Claims. Raises Gone, Waiting, Unreachable."""
        body = {"max": slots, "labels": self._settings.labels, "wait_s": wait_s, "isolation": isolation}
        code, document = await self.call(
            "POST", f"/agents/{self.agent_id}/claim", self._agent_token, body, wait_s=wait_s
        )
        _check_agent("claim", code, document)
        return document  # type: ignore[no-any-return]

    def credentials(self) -> tuple[str, str]:
        """`(agent id, its token)`, for retiring it later."""
        return self.agent_id, self._agent_token

    async def retire(self, agent_id: str, token: str) -> None:
        """Take an agent out of service; nothing to do where its token is refused. Raises Unreachable."""
        code, document = await self.call("PATCH", f"/agents/{agent_id}", token, {"status": "TERMINATED"})
        # 409: by what the API knows it still has work.
        if rules.verdict(code) is Verdict.RETRY or code == 409:
            raise Unreachable(f"retire: {code} {document.get('detail', '')}")

    async def _credential(self) -> str:
        settings = self._settings
        if settings.token is not None:
            return settings.token.get_secret_value()
        if settings.email is None or settings.password is None:
            raise Refused("Set OMOIOS_RUNNER_TOKEN, or OMOIOS_RUNNER_EMAIL and OMOIOS_RUNNER_PASSWORD.")
        body = {"email": settings.email, "password": settings.password.get_secret_value()}
        status, document = await self.call("POST", "/auth/login", "", body)
        if status != 200:
            raise _failure(status, document)
        return str(document["access_token"])


class SandboxApi:
    """What one sandbox does at the API, with its own token; every call is repeated until it is answered."""

    def __init__(self, api: Api, sandbox_id: str, token: str) -> None:
        self._api = api
        self.sandbox_id = sandbox_id
        self.token = token
        self._last_message = ""

    async def post(self, path: str, body: Any, *, raw: bytes | None = None) -> Mapping[str, Any]:
        """POST until answered. Raises Over, Refused."""
        attempt = 0
        while True:
            try:
                return await self.post_once(path, body, raw=raw)
            except Unreachable:
                await asyncio.sleep(rules.backoff_s(attempt))
                attempt += 1

    async def post_once(self, path: str, body: Any, *, raw: bytes | None = None) -> Mapping[str, Any]:
        """POST once. Raises Over, Refused, Unreachable."""
        status, document = await self._api.call(
            "POST", f"/sandboxes/{self.sandbox_id}{path}", self.token, body, raw=raw
        )
        match rules.verdict(status):
            case Verdict.DONE:
                return document  # type: ignore[no-any-return]
            case Verdict.OVER if status == 409 and not str(document.get("code", "agents.")).startswith("agents."):
                # Not the attempt is over: a part behind the API refuses this request, and would refuse it again.
                raise _failure(status, document)
            case Verdict.OVER:
                raise Over(f"{status} {document.get('code', '')}".strip())
            case Verdict.RETRY:
                raise Unreachable(f"{path}: {status}")
            case _:
                raise _failure(status, document)

    async def heartbeat(self) -> Mapping[str, Any]:
        """Renew the lease. Raises Over, Unreachable, Refused."""
        answer = await self.post_once("/heartbeat", {"status": "running"})
        if answer.get("token"):
            self.token = str(answer["token"])
        return answer

    async def messages(self, wait_s: float) -> Sequence[Mapping[str, Any]]:
        """The messages behind those of the last answer, which this acknowledges. Raises Over, Unreachable."""
        query = f"wait_s={wait_s:g}&after={self._last_message}"
        status, document = await self._api.call(
            "GET", f"/sandboxes/{self.sandbox_id}/messages?{query}", self.token, wait_s=wait_s
        )
        if rules.verdict(status) is Verdict.OVER:
            raise Over(str(status))
        if status != 200:
            raise Unreachable(f"messages: {status}")
        messages = document if isinstance(document, list) else []
        if messages:
            self._last_message = str(messages[-1]["id"])
        return messages

    async def release(self, reason: str) -> None:
        """Give the task back, trying for a moment only: its lease ends anyway."""
        with contextlib.suppress(Over, Refused, Unreachable):
            await self.post_once("/release", {"reason": reason})


def _check_agent(what: str, status: int, document: Any) -> None:
    told = str(document.get("agent_status") or "") if isinstance(document, dict) else ""
    text = f"{what}: {status} {document.get('detail', '') if isinstance(document, dict) else ''}".strip()
    match rules.standing(status, told):
        case Standing.GONE:
            raise Gone(text)
        case Standing.WAITING:
            raise Waiting(text)
    if status != 200:
        raise Unreachable(text)


def _failure(status: int, document: Any) -> Exception:
    detail = document.get("detail") if isinstance(document, dict) else None
    text = f"{status}: {detail}"
    return Unreachable(text) if rules.verdict(status) is Verdict.RETRY else Refused(text)
