"""Routes for hot paths: plain ASGI and msgspec, without FastAPI's dependency resolution.

They take part in access, errors, metrics and OpenAPI like every other operation; Idempotency-Key is not looked at,
because what they take in carries ids of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, compile_path
from starlette.types import Receive, Scope, Send

from servicekit import context
from servicekit.auth.principal import Principal
from servicekit.errors import UNAUTHENTICATED
from servicekit.http.body import DEFAULT_LIMIT, decode_struct, parse_json
from servicekit.http.operations import Operation

_encode = msgspec.json.Encoder().encode
_JSON_HEADER = (b"content-type", b"application/json")


class HotRequest:
    """What the endpoint of a :class:`HotRoute` gets: ``body`` is the decoded struct (None without one)."""

    __slots__ = ("_query", "body", "path_params", "request")

    def __init__(self, request: Request, path_params: Mapping[str, str], body: Any) -> None:
        self.request = request
        self.path_params = path_params
        self.body = body
        self._query: dict[str, str] | None = None

    @property
    def principal(self) -> Principal:
        """Who asks. Raises 401 on a public operation without a credential."""
        principal = context.principal.get()
        if principal is None:
            raise UNAUTHENTICATED()
        return principal

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters, the last of several of one name."""
        if self._query is None:
            self._query = dict(parse_qsl(self.request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
        return self._query

    def header(self, name: str) -> str | None:
        """A header's value, None without it."""
        return self.request.headers.get(name)


Endpoint = Callable[[HotRequest], Awaitable[Any]]


class HotRoute:
    """``HotRoute("sandboxes.record_event", "/api/v1/sandboxes/{sandbox_id}/events", methods=["POST"], …)``.

    ``endpoint(call: HotRequest)`` returns a struct (encoded with msgspec), None (empty body) or a Starlette response.
    ``request``: struct or other msgspec type of the JSON body, ``Any`` for any document, None for no body.
    ``response``: type of the answer, for OpenAPI. ``body_limit``: bytes. ``responses``: of ``problems(...)``.
    """

    def __init__(
        self,
        operation_id: str,
        path: str,
        *,
        methods: Sequence[str],
        endpoint: Endpoint,
        request: Any = None,
        response: Any = None,
        status_code: int = 200,
        body_limit: int = DEFAULT_LIMIT,
        summary: str = "",
        responses: Mapping[int | str, dict[str, Any]] | None = None,
    ) -> None:
        self.operation_id = operation_id
        self.path = path
        self.methods = frozenset(method.upper() for method in methods)
        self.endpoint = endpoint
        self.request_type = request
        self.response_type = response
        self.status_code = status_code
        self.body_limit = body_limit
        self.summary = summary or operation_id.partition(".")[2].replace("_", " ").capitalize()
        self.responses = dict(responses or {})
        self.description = (endpoint.__doc__ or "").strip()
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self._match = self.path_regex.match
        self._decoder = None if request is None or request is Any else msgspec.json.Decoder(request)
        self.operation: Operation | None = None

    def bind(self, operation: Operation) -> None:
        """Gives the route its operation; called by the application factory."""
        self.operation = operation

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As a Starlette route."""
        found = self._match(scope["path"])
        if found is None or scope["type"] != "http":
            return Match.NONE, {}
        child = {"endpoint": self.endpoint, "path_params": found.groupdict(), "route": self}
        return (Match.FULL if scope["method"] in self.methods else Match.PARTIAL), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        operation = cast("Operation", self.operation)
        request = Request(scope, receive, send)
        await operation.admit(request)
        body: Any = None
        if self.request_type is not None:
            raw = await request.body()
            body = parse_json(raw) if self._decoder is None else decode_struct(self._decoder, raw)
        call = HotRequest(request, scope["path_params"], body)
        answer = await operation.run(lambda: self.endpoint(call))
        if isinstance(answer, Response):
            await answer(scope, receive, send)
            return
        content = b"" if answer is None else _encode(answer)
        headers = [(b"content-length", str(len(content)).encode())]
        if content:
            headers.append(_JSON_HEADER)
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": content})
