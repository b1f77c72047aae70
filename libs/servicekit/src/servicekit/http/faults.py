"""Any exception → the error that is answered. Nothing but :class:`AppError` shows its cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import asyncpg
import sqlalchemy.exc
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from servicekit.db.failures import unavailable
from servicekit.errors import (
    DEADLINE,
    INTERNAL,
    INVALID_REQUEST,
    ROUTE_NOT_FOUND,
    UNAVAILABLE,
    AppError,
    FieldError,
    Kind,
    invalid_fields,
)

_BY_STATUS = {kind.status: kind for kind in reversed(Kind)}
_CODES = {404: ROUTE_NOT_FOUND.code, 405: "request.method_not_allowed", 415: "request.media_type"}


def as_app_error(error: BaseException) -> tuple[AppError, int | None, bool]:
    """``(error to answer, HTTP status where it is not its kind's, whether it was expected)``.

    An unexpected error is logged with its trace; what the caller sees of it says nothing.
    """
    if isinstance(error, AppError):
        return error, None, error.kind is not Kind.INTERNAL
    if isinstance(error, RequestValidationError):
        return invalid_fields(validation_fields(error.errors())), None, True
    if isinstance(error, HTTPException):
        # FastAPI wraps whatever reading the body raises.
        if isinstance(error.__cause__, AppError):
            return error.__cause__, None, True
        return _from_http(error)
    translated = unavailable(error)
    if translated is not None:
        return translated, None, True
    if isinstance(error, sqlalchemy.exc.TimeoutError | sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError):
        return UNAVAILABLE(), None, True
    if isinstance(error, asyncpg.exceptions.ConnectionDoesNotExistError | asyncpg.TooManyConnectionsError):
        return UNAVAILABLE(), None, True
    if _bad_value(error):
        return invalid_fields([FieldError(("body",), "a value is out of the range that can be stored")]), None, False
    if isinstance(error, TimeoutError):
        return DEADLINE(), None, True
    if isinstance(error, ConnectionError):
        return UNAVAILABLE(), None, True
    return INTERNAL(), None, False


def _bad_value(error: BaseException) -> bool:
    """Whether the database refused a value that validation let through: SQLSTATE class 22, or asyncpg itself."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        # SQLAlchemy's adapter puts an error of its own between its wrapper and the driver's error.
        adapted = error.orig
        if adapted is None:
            return False
        return _bad_value(adapted if adapted.__cause__ is None else adapted.__cause__)
    if isinstance(error, asyncpg.DataError):
        return True
    sqlstate = getattr(error, "sqlstate", None)
    return isinstance(sqlstate, str) and sqlstate.startswith("22")


def _from_http(error: HTTPException) -> tuple[AppError, int | None, bool]:
    status = error.status_code
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = Kind.REFUSED if status < 500 else Kind.INTERNAL
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        status, phrase = kind.status, kind.title
    # Its annotation says text, but FastAPI lets any JSON value through.
    given: Any = error.detail
    detail = given if isinstance(given, str) and given else phrase
    detail_object: Mapping[str, Any] | None = given if isinstance(given, Mapping) else None
    if status == 400 and detail == "There was an error parsing the body":
        return AppError(INVALID_REQUEST.code, detail, Kind.INVALID, fields=[_unreadable()]), None, True
    app_error = AppError(
        _CODES.get(status, f"request.{kind.label}" if status < 500 else INTERNAL.code),
        detail if status < 500 else phrase,
        kind,
        headers=error.headers,
        detail_object=detail_object,
        retry_after_s=1.0 if status == 503 else None,
    )
    return app_error, None if status == kind.status else status, status < 500 or status == 503


def _unreadable() -> FieldError:
    return FieldError(("body",), "the body could not be read", "body_invalid")


def validation_fields(errors: Iterable[Any]) -> list[FieldError]:
    """Pydantic's errors as fields; the cause objects of ``ctx`` become text."""
    found = []
    for item in errors:
        ctx = item.get("ctx")
        found.append(
            FieldError(
                tuple(item.get("loc", ())),
                str(item.get("msg", "invalid")),
                str(item.get("type", "value_error")),
                item.get("input"),
                {name: str(value) if isinstance(value, Exception) else value for name, value in ctx.items()}
                if ctx
                else None,
            )
        )
    return found
