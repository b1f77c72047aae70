"""Lists: the contract's ``limit``/``offset`` and keyset pages for everything new."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query

from servicekit.errors import AppError, invalid

MAX_LIMIT = 500
DEFAULT_LIMIT = 100
MAX_OFFSET = 1_000_000
MAX_PAGE = 100
DEFAULT_PAGE = 50
MAX_TOKEN = 1_024


class PageParams:
    """``limit`` (1 to 500, 100 by default) and ``offset`` (0 to 1,000,000) of the query."""

    __slots__ = ("limit", "offset")

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    ) -> None:
        self.limit = limit
        self.offset = offset


Page = Annotated[PageParams, Depends()]

Key = str | int | float | bool | datetime | None


class KeysetParams:
    """``page_size`` (1 to 100, 50 by default) and ``page_token``; ``after`` is the decoded token.

    ``next_token`` cuts what was fetched with ``limit(keyset.fetch)`` and makes the next token.
    """

    __slots__ = ("after", "page_size")

    def __init__(
        self,
        page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
        page_token: Annotated[str | None, Query(max_length=MAX_TOKEN)] = None,
    ) -> None:
        self.page_size = page_size
        self.after: list[Any] | None = decode_token(page_token) if page_token else None

    @property
    def fetch(self) -> int:
        """Rows to ask the database for: one more than the page, which tells whether there is a next one."""
        return self.page_size + 1

    def expect(self, *types: type) -> tuple[Any, ...] | None:
        """The token's values, None on the first page. Raises 422 when they are not of these types."""
        if self.after is None:
            return None
        if len(self.after) != len(types):
            raise _bad_token()
        values = []
        for value, wanted in zip(self.after, types, strict=True):
            if wanted is datetime and isinstance(value, str):
                try:
                    value = datetime.fromisoformat(value)
                except ValueError as error:
                    raise _bad_token() from error
                if value.tzinfo is None:
                    raise _bad_token()
            elif not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise _bad_token()
            values.append(value)
        return tuple(values)


Keyset = Annotated[KeysetParams, Depends()]


def encode_token(values: Sequence[Key]) -> str:
    """The position after a row as an opaque token: base64url of a JSON array, without padding."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(values))).rstrip(b"=").decode()


def decode_token(token: str) -> list[Any]:
    """The values of a token; a time comes back as ISO 8601 text. Raises 422 naming ``page_token``."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(raw, type=list[str | int | float | bool | None])
    except (binascii.Error, msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise _bad_token() from error
    for value in values:
        if isinstance(value, str) and "\x00" in value:
            raise _bad_token()
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise _bad_token()
    return values


def _bad_token() -> AppError:
    return invalid("page_token", "is not a token of this list", where="query")


def next_token(rows: list[Any], keyset: KeysetParams, key: Any) -> tuple[list[Any], str | None]:
    """``(rows of this page, next_page_token)`` of rows fetched with ``limit(keyset.fetch)``.

    ``key(row)`` gives the values of the row's sort key.
    """
    if len(rows) <= keyset.page_size:
        return rows, None
    page = rows[: keyset.page_size]
    return page, encode_token(key(page[-1]))
