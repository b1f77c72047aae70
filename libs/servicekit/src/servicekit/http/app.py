"""The application of a service, made by the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from servicekit.errors import ROUTE_NOT_FOUND
from servicekit.http import openapi, probes
from servicekit.http.body import DEFAULT_LIMIT
from servicekit.http.edge import Edge
from servicekit.http.operations import Operation
from servicekit.http.routes import KitRoute
from servicekit.ports import AuthenticatorPart

if TYPE_CHECKING:
    from servicekit.host import Service

_API = ["", "api", "v1"]


class RouteIndex:
    """Finds the route of a path among those of its group (``/api/v1/<group>``), in their order.

    A service has some hundred routes; trying the regular expression of each costs more than all the rest of routing.
    """

    def __init__(self, routes: Iterable[Any]) -> None:
        ordered = [(route, getattr(route, "path", "")) for route in routes]
        groups = {group for _, path in ordered if (group := _group(path)) is not None}
        self._groups = {
            group: [route for route, path in ordered if _group(path) == group or _may_be_in_a_group(path)]
            for group in groups
        }
        self._others = [route for route, path in ordered if _group(path) is None]

    def candidates(self, path: str) -> list[Any]:
        """The routes that can match, in order of their declaration."""
        parts = path.split("/", 4)
        if len(parts) > 3 and parts[:3] == _API:
            return self._groups.get(parts[3], self._others)
        return self._others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed: set[str] = set()
        for route in self.candidates(scope["path"]):
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                await route.handle(scope, receive, send)
                return
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": ROUTE_NOT_FOUND.code})
            return
        if allowed:
            raise HTTPException(405, f"{scope['method']} is not allowed here.", {"Allow": ", ".join(sorted(allowed))})
        raise ROUTE_NOT_FOUND()


def _group(path: str) -> str | None:
    parts = path.split("/", 4)
    if len(parts) > 3 and parts[:3] == _API and parts[3] and "{" not in parts[3]:
        return parts[3]
    return None


def _may_be_in_a_group(path: str) -> bool:
    """Whether a path without a literal group can match one below ``/api/v1/<group>``."""
    if _group(path) is not None:
        return False
    parts = path.split("/", 4)
    return all("{" in part or not part or part == wanted for part, wanted in zip(parts, _API, strict=False))


class KitApp(FastAPI):
    """FastAPI with one layer of middleware of ours instead of its six, and indexed routes."""

    def build_middleware_stack(self) -> ASGIApp:
        """Lifespan and routes behind the edge."""
        index = RouteIndex(self.router.routes)
        lifespan = self.router.lifespan

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await lifespan(scope, receive, send)
            else:
                await index(scope, receive, send)

        edge = Edge(inner, self.state.service.settings)
        limits = [route.operation.limit for route in self.router.routes if isinstance(route, KitRoute)]
        limits += [route.operation.limit for route in self.state.hot_routes]
        if not self.state.service.mounts:
            edge.largest_limit = max([DEFAULT_LIMIT, *limits])
        return edge

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, hot routes included."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document(self.state.service.name, self.routes, self.state.hot_routes)
        return self.openapi_schema


def operation_id(route: APIRoute, tags: list[Any]) -> str:
    """``<router tag>.<endpoint function name>``."""
    if not tags:
        raise ValueError(f"{route.path}: its router has no tag, so the operation has no id")
    return f"{tags[0]}.{route.endpoint.__name__}"


def create_app(
    service: Service,
    *,
    authenticator: AuthenticatorPart | None = None,
    readiness: probes.Readiness | None = None,
) -> KitApp:
    """The ASGI application of a service.

    Raises AccessTableMismatch for an operation without an entry or an entry without an operation, ValueError for two
    operations of one id or a debug route in production.
    """
    authenticator = authenticator or service.authenticator
    readiness = readiness or probes.Readiness(service.db)
    app = KitApp(
        title=f"OmoiOS {service.name}",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.authenticator = authenticator
    app.state.readiness = readiness
    app.state.hot_routes = []

    def operation(name: str, path: str, limit: int, keep_answer: bool = True) -> Operation:
        entry = service.access.operations.get(name)
        if entry is None:
            service.access.check_operations(served | {name})
            raise ValueError(f"operation {name} has no entry in the access table")
        if name in served:
            raise ValueError(f"two operations are called {name}")
        served.add(name)
        return Operation(name, path, entry, authenticator, limit, keep_answer, service.db)

    served: set[str] = set()
    for hot in service.hot_routes:
        hot.bind(operation(hot.operation_id, hot.path_format, hot.body_limit))
        app.state.hot_routes.append(hot)
    app.router.routes.extend(probes.routes(service.name, readiness))
    app.router.routes.extend(app.state.hot_routes)
    for router in service.routers:
        app.router.routes.extend(_bound_routes(router, operation))
    app.router.routes.extend(service.mounts)
    service.access.check_operations(served)
    return app


def _bound_routes(router: APIRouter, operation: Callable[..., Operation]) -> Iterable[BaseRoute]:
    """The routes of a room's router (and of those it includes), flat and bound to their operations."""
    for found in iter_route_contexts(router.routes):
        original = found.original_route
        if not isinstance(original, APIRoute):
            yield original
            continue
        # A router's own prefix, tags and dependencies are already in its routes; an included router's are in `found`.
        endpoint, path = found.endpoint, found.path
        assert endpoint is not None
        assert path is not None
        tags = list(found.tags)
        name = operation_id(original, tags)
        limit = getattr(endpoint, "__body_limit__", None) or found.max_body_size or DEFAULT_LIMIT
        bound = operation(name, path, limit, not getattr(endpoint, "__answer_not_kept__", False))
        yield KitRoute(
            path,
            endpoint,
            operation=bound,
            response_model=found.response_model,
            status_code=found.status_code,
            tags=tags,
            dependencies=found.dependencies,
            summary=found.summary,
            description=found.description,
            response_description=found.response_description,
            responses=found.responses,
            deprecated=found.deprecated,
            name=found.name,
            methods=found.methods,
            operation_id=name,
            response_model_include=found.response_model_include,
            response_model_exclude=found.response_model_exclude,
            response_model_by_alias=found.response_model_by_alias,
            response_model_exclude_unset=found.response_model_exclude_unset,
            response_model_exclude_defaults=found.response_model_exclude_defaults,
            response_model_exclude_none=found.response_model_exclude_none,
            include_in_schema=found.include_in_schema,
            response_class=found.response_class,
            callbacks=found.callbacks,
            openapi_extra=found.openapi_extra,
            strict_content_type=_value(found.strict_content_type),
        )


def _value(item: Any) -> Any:
    return item.value if isinstance(item, DefaultPlaceholder) else item
