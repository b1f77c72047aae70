"""Where a credential stands in a request: the `Authorization` header, the access cookie; and origins of pages."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from servicekit.auth.errors import unauthenticated

ACCESS_COOKIE = "omoios_access_token"

_COOKIE_MARK = f"{ACCESS_COOKIE}=".encode()


def bearer(authorization: bytes) -> str:
    """The credential of an `Authorization: Bearer` header. Raises `auth.unauthenticated` for anything else."""
    scheme, _, credential = authorization.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise unauthenticated()
    return credential.strip()


def origin_of(url: str) -> str | None:
    """`scheme://host[:port]` of a URL, lower case; None when it has none (`null`, `*`)."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return None
    if not parts.scheme or not parts.netloc:
        return None
    return f"{parts.scheme}://{parts.netloc}".lower()


def credential_headers(
    headers: Sequence[tuple[bytes, bytes]],
) -> tuple[bytes | None, bytes | None, bytes | None]:
    """`Authorization`, the `Cookie` header that holds the access cookie, and `X-API-Key`; each None when absent."""
    authorization = cookie = api_key = None
    for name, value in headers:
        if name == b"authorization":
            authorization = value
        elif name == b"cookie" and _COOKIE_MARK in value:
            cookie = value
        elif name == b"x-api-key":
            api_key = value
    return authorization, cookie, api_key


def access_cookie(header: bytes) -> str | None:
    """The access token of a `Cookie` header, None without one."""
    for pair in header.decode("latin-1").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == ACCESS_COOKIE and value:
            return value.strip('"')
    return None
