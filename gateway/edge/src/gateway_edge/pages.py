"""The documentation pages and their files; nothing of them comes from another host."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gateway_edge.errors import NOT_FOUND
from gateway_edge.layout import ASSETS

MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".png": "image/png"}

# Both pages write style elements and attributes. Swagger UI shows images of its own style sheet as data.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>OmoiOS API</title>
<link rel="icon" type="image/png" href="/docs/assets/favicon-32x32.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""

SWAGGER_PAGE = _PAGE.format(
    head='<link rel="stylesheet" href="/docs/assets/swagger-ui.css">',
    body='<div id="swagger-ui"></div>\n<script src="/docs/assets/swagger-ui-bundle.js"></script>\n'
    '<script src="/docs/assets/swagger-init.js"></script>',
)
REDOC_PAGE = _PAGE.format(
    head="",
    body='<div id="redoc"></div>\n<script src="/docs/assets/redoc.standalone.js"></script>\n'
    '<script src="/docs/assets/redoc-init.js"></script>',
)


@dataclass(frozen=True)
class Content:
    """Bytes as they are sent, plain and compressed."""

    plain: bytes
    compressed: bytes
    etag: str
    media_type: str

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Content:
        return cls(data, gzip.compress(data, 6, mtime=0), f'"{hashlib.sha256(data).hexdigest()[:32]}"', media_type)

    def response(self, request: Request, cache_control: str) -> Response:
        """The content, its compressed form where the client takes it, or 304 when the client has it."""
        headers = {"ETag": self.etag, "Cache-Control": cache_control, "Vary": "Accept-Encoding"}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                self.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=self.media_type
            )
        return Response(self.plain, headers=headers, media_type=self.media_type)


@lru_cache(maxsize=32)
def _asset(path: Path) -> Content:
    return Content.of(path.read_bytes(), MEDIA_TYPES[path.suffix])


def _page(html: str) -> Response:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    return Response(html, media_type="text/html", headers=headers)


async def swagger(_request: Request) -> Response:
    """Swagger UI over ``/openapi.json``."""
    return _page(SWAGGER_PAGE)


async def redoc(_request: Request) -> Response:
    """ReDoc over ``/openapi.json``."""
    return _page(REDOC_PAGE)


async def asset(request: Request) -> Response:
    """A file of the documentation pages; only those that are shipped, by name."""
    name = request.path_params["name"]
    path = ASSETS / name
    if path.parent != ASSETS or path.suffix not in MEDIA_TYPES or not path.is_file():
        raise NOT_FOUND()
    return _asset(path).response(request, "public, max-age=86400")
