"""Code reads no header by which a client could say who it is: whatever passes the gateway is believed by nobody."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("libs/servicekit/src", "services", "gateway/edge/src")

# Every header of a request beyond HTTP's own that code may read, and why a client may send it.
READ = {
    "x-request-id": "names the request in logs; says nothing about who sent it",
    "x-forwarded-for": "the client's address for rate limits, believed from trusted proxies only",
    "x-forwarded-proto": "set anew by the gateway",
    "x-forwarded-host": "set anew by the gateway",
}
# Names that stand in code because they are written to answers, documents or calls of other programs, never read.
WRITTEN = {
    "x-content-type-options",
    "x-frame-options",
    "x-accel-buffering",
    "x-robots-tag",
    # Where providers take an API key.
    "x-api-key",
    "x-goog-api-key",
    # An extension of OpenAPI documents.
    "x-taggroups",
}
NAME = re.compile(r"^(x-[a-z0-9-]+|remote-[a-z]+|true-client-ip|cf-connecting-ip|forwarded)$", re.IGNORECASE)


def names_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if NAME.match(text):
                found.add(text.lower())
    return found


def test_only_listed_headers_are_named() -> None:
    files = [path for top in SOURCES for path in (ROOT / top).rglob("src/**/*.py" if top == "services" else "*.py")]
    assert len(files) > 300
    named = {name: str(path) for path in files for name in names_in(path)}
    unknown = {name: path for name, path in named.items() if name not in READ and name not in WRITTEN}
    assert unknown == {}


def test_a_planted_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "routes.py").write_text('user = request.headers.get("X-User-Id") or scope.get(b"remote-user")\n')
    assert names_in(tmp_path / "routes.py") == {"x-user-id", "remote-user"}
