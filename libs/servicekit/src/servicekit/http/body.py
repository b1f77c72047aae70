"""Request bodies: bounded while they stream in, and JSON that every later step can store and send."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from servicekit.errors import BODY_TOO_LARGE, AppError, FieldError, invalid, invalid_fields
from servicekit.http.admission import Place

DEFAULT_LIMIT = 1024 * 1024
MAX_DEPTH = 64
_NO_STRUCTURE = bytes(set(range(256)) - set(b'{}[]"'))
METER = "servicekit.body"

_BYTE = re.compile(r"\(byte (\d+)\)")
_decode = msgspec.json.Decoder().decode


def too_large(limit: int) -> AppError:
    """413 naming the limit in bytes."""
    return BODY_TOO_LARGE(f"The request body is larger than {limit} bytes.", limit=limit)


class BodyMeter:
    """Counts a body as it arrives. ``declared``: Content-Length, -1 without one (chunked)."""

    __slots__ = ("_begun", "_place", "_receive", "declared", "limit", "seen")

    def __init__(self, receive: Receive, declared: int, limit: int = DEFAULT_LIMIT, place: Place | None = None) -> None:
        self._receive = receive
        self._place = place
        self._begun = False
        self.declared = declared
        self.limit = limit
        self.seen = 0

    def admit(self, limit: int) -> None:
        """Sets the route's own limit. Raises 413 at once when Content-Length is above it."""
        self.limit = limit
        if self.declared > limit:
            raise too_large(limit)

    async def __call__(self) -> Message:
        message = await (self._receive() if self._place is None else self._next(self._place))
        if message["type"] == "http.request":
            self.seen += len(message.get("body", b""))
            if self.seen > self.limit:
                raise too_large(self.limit)
        return message

    async def _next(self, place: Place) -> Message:
        """The next message; a client that takes its time to send it keeps nobody out meanwhile."""
        place.leave()
        try:
            message = await self._receive()
        except BaseException:
            place.come_back()
            raise
        if self._begun:
            place.come_back()
        else:
            self._begun = True
            place.come_in()
        return message


def admit_body(scope: Scope, limit: int) -> None:
    """Applies a route's limit to the body of this request."""
    meter = scope.get(METER)
    if meter is not None:
        meter.admit(limit)


def parse_json(body: bytes) -> Any:
    """A JSON document in UTF-8 without NUL characters, lone surrogates, NaN or more than 64 levels.

    Raises 422 naming the place where it is known.
    """
    try:
        value = _decode(body)
    except UnicodeDecodeError as error:
        raise _json_invalid("the body is not UTF-8", _not_utf8(body)) from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.ValidationError as error:
        # Without a type to decode to, only a number can be refused.
        raise invalid_fields([FieldError(_place_of_number(body), _plain(str(error)), "number_range")]) from error
    except msgspec.DecodeError as error:
        raise _json_invalid(str(error)) from error
    if too_deep(body):
        raise _too_deep()
    if b"\\u0000" in body:
        check_tree(value)
    return value


def too_deep(body: bytes) -> bool:
    """Whether a well-formed document nests deeper than 64 levels; exact, and without a loop over its values."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Every other piece between quotes is a string; what is left of the rest is its brackets.
    brackets = b"".join(body.translate(None, _NO_STRUCTURE).split(b'"')[::2])
    left = brackets
    for _ in range(MAX_DEPTH // 2):
        # A round takes away at most two levels, so what is gone after 32 of them was not deeper than 64.
        left = left.replace(b"{}", b"").replace(b"[]", b"")
        if not left:
            return False
    depth = 0
    for byte in brackets:
        depth += 1 if byte in b"{[" else -1
        if depth > MAX_DEPTH:
            return True
    return False


class _Unusable:
    """Stands for a number that no step after the parser could hold."""


def _place_of_number(body: bytes) -> tuple[str | int, ...]:
    """Where the first number that is out of range stands; msgspec says so only for typed documents."""

    def integer(text: str) -> Any:
        return _Unusable if len(text) > 300 else 0

    def real(text: str) -> Any:
        return 0 if math.isfinite(float(text)) else _Unusable

    try:
        root = json.loads(body, parse_int=integer, parse_float=real)
    except (ValueError, RecursionError):
        return ("body",)
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(root, ("body",))]
    while stack:
        value, loc = stack.pop()
        if value is _Unusable:
            return loc
        if isinstance(value, dict):
            stack.extend((item, (*loc, name)) for name, item in value.items())
        elif isinstance(value, list):
            stack.extend((item, (*loc, index)) for index, item in enumerate(value))
    return ("body",)


def _json_invalid(why: str, position: int | None = None) -> AppError:
    if position is None:
        found = _BYTE.search(why)
        position = int(found[1]) if found else 0
    return invalid_fields([FieldError(("body", position), "JSON decode error", "json_invalid", {}, {"error": why})])


def _not_utf8(body: bytes) -> int:
    """Where the first byte stands that is not UTF-8; the parser counts from the start of its string."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _too_deep() -> AppError:
    return invalid_fields([FieldError(("body",), f"nested deeper than {MAX_DEPTH} levels", "json_too_deep")])


def check_tree(root: Any) -> None:
    """Raises 422 for a NUL character anywhere in the decoded document."""
    stack: list[tuple[Any, tuple[str | int, ...]]] = [(root, ("body",))]
    while stack:
        value, loc = stack.pop()
        if isinstance(value, str):
            if "\x00" in value:
                raise invalid_fields([_nul(loc)])
        elif isinstance(value, dict):
            for name, item in value.items():
                if "\x00" in name:
                    raise invalid_fields([_nul((*loc, name.replace("\x00", "\\u0000")))])
                if isinstance(item, str | dict | list):
                    stack.append((item, (*loc, name)))
        elif isinstance(value, list):
            stack.extend(
                (item, (*loc, index)) for index, item in enumerate(value) if isinstance(item, str | dict | list)
            )


def _nul(loc: tuple[str | int, ...]) -> FieldError:
    return FieldError(loc, "must not contain NUL characters", "string_nul")


def check_address(scope: Scope) -> None:
    """Raises 422 for a NUL character in the path or the query."""
    if "\x00" in scope["path"]:
        for name, value in scope.get("path_params", {}).items():
            if isinstance(value, str) and "\x00" in value:
                raise invalid(name, "must not contain NUL characters", where="path", type="string_nul")
        raise invalid((), "must not contain NUL characters", where="path", type="string_nul")
    query = scope["query_string"]
    if b"%00" in query or b"\x00" in query:
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
            if "\x00" in value or "\x00" in name:
                raise invalid(
                    name.replace("\x00", "\\u0000"), "must not contain NUL characters", where="query", type="string_nul"
                )


def _place(message: str) -> tuple[str | int, ...]:
    """``- at `$.items[0].name``` of msgspec → ``("items", 0, "name")``."""
    _, found, path = message.rpartition(" - at `$")
    if not found:
        return ()
    parts: list[str | int] = []
    for segment in path.rstrip("`").replace("[", ".[").split("."):
        if not segment:
            continue
        if segment.startswith("["):
            inner = segment[1:-1]
            if inner.isdigit():
                parts.append(int(inner))
        else:
            parts.append(segment)
    return tuple(parts)


def _plain(message: str) -> str:
    return message.rpartition(" - at `")[0] or message


def decode_struct(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The body as the decoder's type, with the same refusals as :func:`parse_json`."""
    try:
        value = decoder.decode(body)
    except UnicodeDecodeError as error:
        raise _json_invalid("the body is not UTF-8", _not_utf8(body)) from error
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.ValidationError as error:
        text = str(error)
        kind = "missing" if "missing required field" in text else "type_error"
        loc = _place(text)
        if kind == "missing":
            loc = (*loc, text.split("`")[1])
        raise invalid_fields([FieldError(("body", *loc), _plain(text), kind)]) from error
    except msgspec.DecodeError as error:
        raise _json_invalid(str(error)) from error
    # The decoder passes over what its type keeps as raw text.
    parse_json(body)
    return value


class KitRequest(Request):
    """A request whose JSON and forms are read strictly."""

    async def json(self) -> Any:
        """The body as JSON; raises 422 as :func:`parse_json` does."""
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json

    async def _get_form(self, **limits: Any) -> Any:
        form = await super()._get_form(**limits)
        for name, value in form.multi_items():
            if isinstance(value, str) and "\x00" in value:
                raise invalid(name, "must not contain NUL characters", type="string_nul")
        return form
