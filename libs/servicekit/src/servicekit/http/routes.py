"""The route class of every operation: access, one retry after a refresh of memberships, Idempotency-Key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import orjson
from fastapi.dependencies.models import Dependant
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from servicekit import context
from servicekit.context import IdempotencyClaim
from servicekit.errors import invalid
from servicekit.http import replay
from servicekit.http.body import KitRequest
from servicekit.http.operations import Operation

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
MAX_KEY = 255


class KitRoute(APIRoute):
    """A FastAPI route bound to its :class:`Operation`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, operation: Operation, **options: Any) -> None:
        self.operation = operation
        super().__init__(path, endpoint, **options)
        _refuse_late_dependencies(operation.id, self.dependant)
        self._match = self.path_regex.match
        self._verbs = frozenset(self.methods or ())
        self._convert = {
            name: convertor.convert
            for name, convertor in self.param_convertors.items()
            if convertor.regex not in ("[^/]+", ".*")
        }
        self.app = self._asgi(super().get_route_handler())

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's; without the root path, which services do not have."""
        found = self._match(scope["path"])
        if found is None or scope["type"] != "http":
            return Match.NONE, {}
        params: dict[str, Any] = found.groupdict()
        for name, convert in self._convert.items():
            params[name] = convert(params[name])
        child = {"endpoint": self.endpoint, "path_params": params, "route": self}
        return (Match.FULL if scope["method"] in self._verbs else Match.PARTIAL), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request whose method matched."""
        await self.app(scope, receive, send)

    def _asgi(self, endpoint: Handler) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
        operation = self.operation
        replayable = "POST" in self._verbs and not operation.access.public and operation.database is not None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = KitRequest(scope, receive, send)
            await operation.admit(request)

            async def attempt() -> Response:
                # Dependencies with `yield` of scope "function" are closed before anything is answered.
                async with AsyncExitStack() as function_stack:
                    scope["fastapi_function_astack"] = function_stack
                    return await endpoint(request)

            async with AsyncExitStack() as request_stack:
                scope["fastapi_inner_astack"] = scope["fastapi_middleware_astack"] = request_stack
                key = request.headers.get("idempotency-key") if replayable else None
                if key is None:
                    response = await operation.run(attempt)
                else:
                    claim = await self._claim(request, key)
                    response = await replay.once(operation.database, claim, lambda: operation.run(attempt))
                await response(scope, receive, send)

        return app

    async def _claim(self, request: Request, key: str) -> IdempotencyClaim:
        if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
            raise invalid("Idempotency-Key", f"must be 1 to {MAX_KEY} printable ASCII characters", key, where="header")
        principal = context.principal.get()
        assert principal is not None, "an operation that is not public has a principal"
        scope = request.scope
        return IdempotencyClaim(
            scope=principal.subject,
            key=key,
            digest=replay.digest(scope["method"], scope["path"], scope["query_string"], await request.body()),
            status_code=self.status_code or 200,
            encode=self._encode if self.operation.keep_answer else _nothing,
            keep_answer=self.operation.keep_answer,
        )

    def _encode(self, value: Any) -> bytes:
        """The response body FastAPI makes from ``value``."""
        field = self.response_field
        if field is None:
            return orjson.dumps(jsonable_encoder(value))
        checked, errors = field.validate(value, {}, loc=("response",))
        if errors:
            raise TypeError(f"{self.operation.id} answered what its response model refuses: {errors}")
        return field.serialize_json(
            checked,
            include=self.response_model_include,
            exclude=self.response_model_exclude,
            by_alias=self.response_model_by_alias,
            exclude_unset=self.response_model_exclude_unset,
            exclude_defaults=self.response_model_exclude_defaults,
            exclude_none=self.response_model_exclude_none,
        )


def _refuse_late_dependencies(operation: str, dependant: Dependant) -> None:
    """Raises ValueError for a dependency that ends after the answer was sent.

    What such a dependency commits may fail when the client has already been told that it succeeded.
    """
    for dependency in dependant.dependencies:
        call = dependency.call
        if (inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call)) and dependency.scope != "function":
            name = getattr(call, "__name__", repr(call))
            raise ValueError(f"{operation}: the dependency {name} yields; give it Depends(..., scope='function')")
        _refuse_late_dependencies(operation, dependency)


def _nothing(_value: Any) -> bytes:
    return b""
