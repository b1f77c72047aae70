"""The role-per-file table of a service, as data: which file may import what. `rooms.py` applies it."""

from __future__ import annotations

from dataclasses import dataclass, field

ENTRIES = frozenset({"routes", "rpc", "consumers", "jobs"})


@dataclass(frozen=True)
class Role:
    own: frozenset[str] = frozenset()  # Roles of the same room.
    lower: frozenset[str] = frozenset()  # Roles of rooms below; that they are below is the room graph's business.
    top: frozenset[str] = frozenset()  # Modules at the service's top.
    allows: frozenset[str] = frozenset()  # Groups of libraries: keys of LIBRARIES.
    kit: frozenset[str] | None = None  # Modules of the kit; None means all that the forbidden ones below leave.
    forbidden_kit: frozenset[str] = field(default=frozenset())


def _of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Top-level import names. A library in no group (typing, json, msgspec, structlog, …) may be imported anywhere.
LIBRARIES = {
    "sql": _of("sqlalchemy asyncpg alembic pgvector psycopg sqlite3"),
    "http": _of("fastapi starlette uvicorn"),
    "grpc": _of("grpc grpc_health grpc_reflection grpc_status"),
    "contracts": _of("omoios"),
    "vendor": _of(
        "aiohttp aiosmtplib anthropic authlib docker githubkit httpx httpx2 kubernetes nats openai pydantic_ai "
        "pygit2 redis requests smtplib stripe subprocess tree_sitter urllib3"
    ),
    "io": _of(
        "aiofiles asyncio concurrent ftplib glob http io multiprocessing os pathlib select selectors "
        "shutil signal socket ssl tempfile threading time urllib"
    ),
}
# Parts of those packages that every file may import: types, pure functions, and the error that a unique key raises.
PLAIN_MODULES = (
    "sqlalchemy.exc",
    "sqlalchemy.Row",
    "urllib.parse",
    "http.HTTPStatus",
    "pathlib.PurePosixPath",
    "pathlib.PurePath",
)

ROLES = {
    "routes": Role(
        own=_of("routes schemas service errors"),
        top=_of("access errors settings"),
        allows=_of("http io"),
        forbidden_kit=_of("db events rpc"),
    ),
    "schemas": Role(own=_of("schemas rules tables"), lower=_of("schemas rules tables"), kit=_of("errors http ids")),
    "rpc": Role(own=_of("rpc service tables errors"), top=_of("errors settings"), allows=_of("grpc contracts io")),
    "consumers": Role(own=_of("consumers service errors"), top=_of("errors settings"), allows=_of("contracts io")),
    "jobs": Role(own=_of("jobs service errors"), top=_of("errors settings"), allows=_of("contracts io")),
    # Tables come into service, schemas, rpc and events as the types of rows; the SQL toolkit itself stays out of them.
    "service": Role(
        own=_of("service rules store tables adapters schemas errors"),
        lower=_of("service rules tables schemas errors"),
        top=_of("events metrics access settings errors clients replica"),
        allows=_of("contracts io"),
    ),
    "rules": Role(own=_of("rules errors"), lower=_of("rules errors"), top=_of("errors"), kit=_of("errors")),
    "store": Role(
        own=_of("store tables rules errors"),
        lower=_of("tables rules"),
        top=_of("replica errors"),
        allows=_of("sql io"),
        forbidden_kit=_of("http rpc"),
    ),
    "tables": Role(own=_of("tables"), lower=_of("tables"), allows=_of("sql"), kit=_of("db ids clock")),
    "adapters": Role(
        own=_of("adapters rules errors"),
        lower=_of("adapters rules errors"),
        top=_of("settings errors"),
        allows=_of("vendor io"),
        forbidden_kit=_of("db events"),
    ),
    "errors": Role(own=_of("errors"), lower=_of("errors"), top=_of("errors"), kit=_of("errors")),
    # A process of its own inside a room, such as the runner: its composition root.
    "main": Role(own=_of("*"), lower=_of("*"), top=_of("*"), allows=_of("*")),
}
# A file of a room that is named after no role is held to the strictest one.
UNNAMED = "rules"

# Modules at the service's top: what each may import of the service, and which groups of libraries.
TOP_MODULES = {
    "main": Role(top=_of("*"), lower=_of("*"), allows=_of("*")),
    "admin": Role(top=_of("*"), lower=_of("*"), allows=_of("*")),
    "worker": Role(top=_of("main settings"), allows=_of("io")),
    "settings": Role(allows=_of("io")),
    "errors": Role(kit=_of("errors")),
    "access": Role(kit=_of("auth")),
    "events": Role(lower=_of("rules tables"), allows=_of("contracts")),
    "metrics": Role(kit=_of("db telemetry")),
    "clients": Role(top=_of("errors clients"), allows=_of("grpc contracts io")),
    "replica": Role(top=_of("clients errors settings"), allows=_of("sql contracts io")),
    # What the kit reads from the service itself, such as identity's own memberships.
    "sources": Role(top=_of("errors settings"), lower=_of("service store tables errors"), allows=_of("sql io")),
    "rpc": Role(top=_of("errors settings"), lower=_of("service rpc tables errors"), allows=_of("grpc contracts io")),
    "__init__": Role(),
}

TRANSACTIONS = frozenset({"service"})  # Roles that may open a transaction.
TRANSACTIONS_TOP = frozenset({"replica"})
