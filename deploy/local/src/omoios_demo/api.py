"""The public API as the demo uses it: through the gateway, as any client."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from omoios_demo.errors import DemoError

ANSWER_S = 30.0
# A part that restarts is away for seconds; the API says so with 502, 503 or 504.
PATIENCE_S = 30.0
AWAY = (502, 503, 504)


class Refused(DemoError):
    """The API answered with an error. `status` is the HTTP status, `code` the problem's code where it has one."""

    def __init__(self, what: str, answer: httpx2.Response) -> None:
        self.status = answer.status_code
        self.code = ""
        detail: Any = answer.text[:500]
        try:
            document = answer.json()
            self.code = str(document.get("code", ""))
            detail = spoken(document.get("detail", detail))
        except (ValueError, AttributeError):
            pass
        super().__init__(f"{what}: {self.status} {self.code} {detail}".replace("  ", " "))


def spoken(detail: Any) -> str:
    """The detail of a problem; of several, one to a line."""
    if not isinstance(detail, list):
        return str(detail)
    return "".join(f"\n  {item.get('msg', item)}" for item in detail if isinstance(item, dict))


class Api:
    """One client of the gateway. `token` is sent as Bearer once it is set; `renew` gets a new one after a 401."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token: str | None = None
        self.renew: Callable[[], str] | None = None
        self._client = httpx2.Client(base_url=url, timeout=ANSWER_S, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET a document. Raises Refused."""
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST a document. Raises Refused."""
        return self.call("POST", path, body=body)

    def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """One call below `/api/v1`; waits a while for a part that is away. Raises Refused, DemoError."""
        deadline = time.monotonic() + PATIENCE_S
        renewed = False
        while True:
            answer = self._send(method, path, body, query, deadline)
            if answer is None or (answer.status_code in AWAY and time.monotonic() < deadline):
                time.sleep(0.5)
                continue
            if answer.status_code == 401 and self.renew is not None and self.token is not None and not renewed:
                renewed = True
                self.token = self.renew()
                continue
            if answer.status_code >= 400:
                raise Refused(f"{method} {path}", answer)
            return answer.json() if answer.content else None

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        deadline: float,
    ) -> httpx2.Response | None:
        """The answer; None when the gateway did not answer and there is time to ask again."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            return self._client.request(
                method,
                f"/api/v1{path}",
                json=None if body is None else dict(body),
                params=dict(query) if query else None,
                headers=headers,
            )
        except httpx2.TransportError as error:
            # Asking again after a request that was sent may do a thing twice: only what reads is repeated.
            if time.monotonic() >= deadline or (method != "GET" and not isinstance(error, httpx2.ConnectError)):
                raise DemoError(f"{method} {path}: the gateway does not answer ({error})") from error
            return None
