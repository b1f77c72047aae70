"""Problem details (RFC 9457) in the contract's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import orjson

from servicekit.errors import AppError, ErrorSpec, FieldError, Kind
from servicekit.logging import REDACTED, clean, is_secret_name

PROBLEM_JSON = b"application/problem+json"
JSON = b"application/json"
TYPE_PREFIX = "urn:omoios:problem:"

# What a refused request echoes back is bounded, so that a large body cannot be answered with a larger one.
MAX_FIELDS = 50
MAX_INPUT_CHARS = 200
MAX_INPUT_BYTES = 2_048


def field_item(error: FieldError) -> dict[str, Any]:
    """One entry of the 422 list: ``{type, loc, msg, input, ctx?}`` with secrets removed and long input cut."""
    item = error.as_dict()
    if any(isinstance(part, str) and is_secret_name(part) for part in error.loc):
        item["input"] = REDACTED if error.type != "missing" else None
    else:
        item["input"] = _bounded(clean(item["input"], MAX_INPUT_CHARS))
    item["loc"] = [clean(part, MAX_INPUT_CHARS) for part in item["loc"]]
    item["msg"] = clean(item["msg"], 500)
    if "ctx" in item:
        item["ctx"] = _bounded(clean(item["ctx"], MAX_INPUT_CHARS))
    return item


def _bounded(value: Any) -> Any:
    if isinstance(value, dict | list) and len(orjson.dumps(value)) > MAX_INPUT_BYTES:
        return f"{'object' if isinstance(value, dict) else 'array'} of {len(value)} items"
    return value


def body_of(
    error: AppError, *, request_id: str, instance: str, status: int | None = None
) -> tuple[dict[str, Any], bytes]:
    """The JSON body of an error and its media type.

    Three shapes: a problem (``detail`` is a string), the 422 list, and the contract's object.
    """
    if error.fields:
        return {
            "detail": [field_item(item) for item in error.fields[:MAX_FIELDS]],
            "code": error.code,
            "request_id": request_id,
        }, JSON
    if error.detail_object is not None:
        return {"detail": dict(error.detail_object), "code": error.code, "request_id": request_id}, JSON
    code = status or error.kind.status
    body: dict[str, Any] = {
        **error.meta,
        "type": TYPE_PREFIX + error.code,
        "title": error.kind.title if status is None else HTTPStatus(code).phrase,
        "status": code,
        "detail": error.detail,
        "instance": clean(instance, 500),
        "code": error.code,
        "request_id": request_id,
    }
    if error.kind is Kind.RATE_LIMITED:
        # The contract's rate-limit body has its text under `error`.
        body["error"] = error.detail
    return body, PROBLEM_JSON


def headers_of(error: AppError) -> list[tuple[bytes, bytes]]:
    """The headers that go with an error: ``Retry-After`` in whole seconds, ``WWW-Authenticate`` on 401."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    names = {name for name, _ in headers}
    if error.retry_after_s is not None and b"retry-after" not in names:
        headers.append((b"retry-after", str(max(1, -int(-error.retry_after_s // 1))).encode()))
    if error.kind is Kind.UNAUTHENTICATED and b"www-authenticate" not in names:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def render(
    error: AppError, *, request_id: str, instance: str, status: int | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an error as ASGI sends them."""
    content, media_type = body_of(error, request_id=request_id, instance=instance, status=status)
    body = orjson.dumps(content, default=str)
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode()), *headers_of(error)]
    if error.kind is not Kind.GONE and (status or error.kind.status) != 404:
        headers.append((b"cache-control", b"no-store"))
    return status or error.kind.status, headers, body


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "additionalProperties": True,
}
FIELDS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["detail", "code", "request_id"],
    "properties": {
        "detail": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "loc", "msg"],
                "properties": {
                    "type": {"type": "string"},
                    "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                    "msg": {"type": "string"},
                    "input": {},
                    "ctx": {"type": "object"},
                },
            },
        },
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
COMPONENT_SCHEMAS = {"Problem": PROBLEM_SCHEMA, "InvalidRequest": FIELDS_SCHEMA}


def problems(*specs: ErrorSpec) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route: each declared error by status, with its codes."""
    by_status: dict[int, list[ErrorSpec]] = {}
    for spec in specs:
        by_status.setdefault(spec.kind.status, []).append(spec)
    return {status: _response(found) for status, found in sorted(by_status.items())}


def _response(specs: Iterable[ErrorSpec]) -> dict[str, Any]:
    found = list(specs)
    schema = {"$ref": "#/components/schemas/Problem"}
    content: dict[str, Any] = {
        PROBLEM_JSON.decode(): {
            "schema": schema,
            "examples": {
                spec.code: {
                    "value": {
                        "type": TYPE_PREFIX + spec.code,
                        "title": spec.kind.title,
                        "status": spec.kind.status,
                        "detail": spec.detail,
                        "code": spec.code,
                        "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
                    }
                }
                for spec in found
            },
        }
    }
    if any(spec.kind is Kind.INVALID for spec in found):
        content[JSON.decode()] = {"schema": {"$ref": "#/components/schemas/InvalidRequest"}}
    return {
        "description": "; ".join(f"`{spec.code}`: {spec.detail}" for spec in found),
        "content": content,
    }
