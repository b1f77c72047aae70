"""The OpenAPI document of a service: FastAPI's, the hot routes, and the problem shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from servicekit.errors import (
    BODY_TOO_LARGE,
    FORBIDDEN,
    IDEMPOTENCY_IN_FLIGHT,
    RATE_LIMITED,
    ROUTE_NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    ErrorSpec,
)
from servicekit.http.hot import HotRoute
from servicekit.http.problems import COMPONENT_SCHEMAS, FIELDS_SCHEMA
from servicekit.http.ratelimit import RateLimit

if TYPE_CHECKING:
    from servicekit.host import Service

_REF = "#/components/schemas/{name}"


def openapi_document(service: Service) -> dict[str, Any]:
    """The document of a service, without starting it: for the gateway's merge and the drift check."""
    from servicekit.http.app import create_app

    return create_app(service).openapi()


def document(service: str, routes: Sequence[BaseRoute], hot_routes: Iterable[HotRoute]) -> dict[str, Any]:
    """The document of these routes; operations and components are in a stable order."""
    found = get_openapi(title=f"OmoiOS {service}", version="1", openapi_version="3.1.0", routes=_documented(routes))
    components = found.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    hot = list(hot_routes)
    types = [t for route in hot for t in (route.request_type, route.response_type) if t is not None and t is not Any]
    made, definitions = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(id, types), made, strict=True))
    schemas.update(definitions)
    for route in hot:
        for method in sorted(route.methods):
            found["paths"].setdefault(route.path_format, {})[method.lower()] = _hot_operation(route, by_type)
    schemas.update(COMPONENT_SCHEMAS)
    # FastAPI documents its own 422; what is answered here has two members more.
    schemas.pop("ValidationError", None)
    schemas["HTTPValidationError"] = FIELDS_SCHEMA
    components["schemas"] = dict(sorted(schemas.items()))
    components["parameters"] = {
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Makes a repeat safe for 24 hours: the same request gets the first answer again.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
    }
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "omoios_access_token"},
    }
    found["paths"] = dict(sorted(found["paths"].items()))
    _answered_by_the_kit(found, routes, hot)
    return found


def _documented(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    return [route for route in routes if not isinstance(route, HotRoute)]


def _answered_by_the_kit(found: dict[str, Any], routes: Sequence[Any], hot: Sequence[HotRoute]) -> None:
    """Marks each operation with what it needs, and declares the statuses that the kit answers for it."""
    by_id = {route.operation.id: route for route in [*routes, *hot] if getattr(route, "operation", None) is not None}
    hot_ids = {route.operation_id for route in hot}
    found["components"]["responses"] = {name: _problem(spec) for name, spec in _RESPONSES.items()}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            route = by_id[operation["operationId"]]
            public = route.operation.access.public
            operation["security"] = [] if public else [{"bearer": []}, {"cookie": []}]
            if not public and method == "post" and operation["operationId"] not in hot_ids:
                operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/IdempotencyKey"})
                _declare(operation, 409, "KeyInFlight")
                _also_problem(operation)
            if not public:
                _declare(operation, 401, "Unauthenticated")
                _declare(operation, 403, "Forbidden")
            if "{" in path:
                _declare(operation, 404, "RouteNotFound")
            if "requestBody" in operation:
                _declare(operation, 413, "BodyTooLarge")
            # Any address may hold a NUL.
            operation["responses"].setdefault("422", _invalid())
            if _limited(getattr(route, "dependant", None)):
                _declare(operation, 429, "RateLimited")
            _declare(operation, 503, "Unavailable")
            operation["responses"] = dict(sorted(operation["responses"].items()))


_RESPONSES = {
    "BodyTooLarge": BODY_TOO_LARGE,
    "Forbidden": FORBIDDEN,
    "KeyInFlight": IDEMPOTENCY_IN_FLIGHT,
    "RateLimited": RATE_LIMITED,
    "RouteNotFound": ROUTE_NOT_FOUND,
    "Unauthenticated": UNAUTHENTICATED,
    "Unavailable": UNAVAILABLE,
}


def _problem(spec: ErrorSpec) -> dict[str, Any]:
    return {
        "description": f"`{spec.code}`: {spec.detail}",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _declare(operation: dict[str, Any], status: int, name: str) -> None:
    """Names a response of the kit where the operation does not say itself when it answers so."""
    operation["responses"].setdefault(str(status), {"$ref": f"#/components/responses/{name}"})


def _invalid() -> dict[str, Any]:
    return {
        "description": "Validation Error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InvalidRequest"}}},
    }


def _also_problem(operation: dict[str, Any]) -> None:
    """A reused Idempotency-Key is a problem without fields."""
    content = operation["responses"].setdefault("422", _invalid())["content"]
    content.setdefault("application/problem+json", {"schema": {"$ref": "#/components/schemas/Problem"}})


def _limited(dependant: Dependant | None) -> bool:
    """Whether a rate limit stands before the endpoint."""
    if dependant is None:
        return False
    return any(isinstance(one.call, RateLimit) or _limited(one) for one in dependant.dependencies)


def _hot_operation(route: HotRoute, by_type: dict[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.operation_id.partition(".")[0]],
        "summary": route.summary,
        "operationId": route.operation_id,
        "responses": {},
    }
    if route.description:
        operation["description"] = route.description
    parameters = re.findall(r"{(\w+)}", route.path_format)
    if parameters:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters
        ]
    if route.request_type is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type.get(id(route.request_type), {})}},
        }
    success: dict[str, Any] = {"description": "Successful Response"}
    if route.response_type is not None:
        success["content"] = {"application/json": {"schema": by_type.get(id(route.response_type), {})}}
    operation["responses"][str(route.status_code)] = success
    operation["responses"].update({str(status): body for status, body in route.responses.items()})
    return operation
