"""Bad requests made from the OpenAPI document, and what they may do to a database: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.e2e.access.databases import Databases
from tests.e2e.access.operations import Operation, document
from tests.e2e.access.recipe import places

TYPES = ("object", "array", "string", "integer")
WRONG: Mapping[str, Any] = {"object": {"wrong": {}}, "array": [["wrong"]], "string": "\u2603 wrong", "integer": 7}
LONG = 120_000
"""Characters of an over-long text, or one more than the field may have where that is longer."""
LONGEST = 900_000
"""Of a field without a limit; the body's own is 1 MiB."""
DEEP = 100
LARGE_BYTES = 6 * 1024 * 1024
"""More than any operation and the gateway itself take."""
ENORMOUS = 10**30
UNKNOWN = {"commit_sha": "0123456789" * 4}
"""Well-formed ids of nothing where the form is no UUID."""
# What the kit keeps for itself, and what other services' events change meanwhile.
KIT = ("alembic_version", "outbox", "inbox", "stream_readers", "idempotency_keys")
KIT_PREFIXES = ("inbox_", "replica_", "event_log")
# Sums over rows of other tables, which clock work folds some time after these have changed.
FOLDED = ("ticket_counts", "ticket_count_deltas")
# What clock work writes into rows that stand: the seal of an entry, the way of a mail.
CLOCK_WORK: Mapping[str, tuple[str, ...]] = {
    "audit_log": ("position", "digest"),
    "audit_heads": ("position", "digest", "updated_at"),
    "mails": ("state", "attempts", "due_at", "updated_at", "last_error", "sealed_context"),
}


@dataclass(frozen=True)
class Case:
    """One bad request: what replaces the good one's parts, and what must come of it.

    `names`: fields that a 422 has to name. `only_safe`: the parameter may mean nothing, so 2xx is right, too.
    """

    what: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    names: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset({422})
    only_safe: bool = False


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind references, and the object behind `or null`."""
    while True:
        if "$ref" in schema:
            found: Any = document()
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        elif "anyOf" in schema and len(real := [one for one in schema["anyOf"] if one.get("type") != "null"]) == 1:
            schema = real[0]
        else:
            return schema


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """The JSON types that a schema takes; all of them where it says nothing."""
    schema = resolved(schema)
    if "anyOf" in schema:
        return set().union(*(types_of(one) for one in schema["anyOf"]))
    found = schema.get("type")
    if found is None:
        return set(TYPES) if "enum" not in schema and "const" not in schema else {"string"}
    return {"integer" if one == "number" else one for one in ([found] if isinstance(found, str) else found)}


def body_schema(operation: Operation) -> Mapping[str, Any] | None:
    """The schema of the JSON body, None without one."""
    content = operation.document.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None else resolved(content["schema"])


def parameters(operation: Operation, place: str) -> dict[str, Mapping[str, Any]]:
    """Name → schema of the parameters in this place."""
    found = [resolved(one) for one in operation.document.get("parameters", ())]
    return {one["name"]: one["schema"] for one in found if one["in"] == place}


def cases(operation: Operation, body: Any) -> Iterator[Case]:
    """Everything bad about one operation; `body` is a good one."""
    yield from _bodies(operation, body)
    for name in parameters(operation, "path"):
        # The gateway itself refuses an encoded NUL or slash in a path, with an empty 400.
        yield Case(f"NUL in {name}", path={name: "a%00b"}, statuses=frozenset({400, 404, 422}))
        yield Case(f"{name} not UTF-8", path={name: "%ff%fe"}, statuses=frozenset({307, 400, 404, 422}), only_safe=True)
        yield Case(f"{name} long", path={name: "x" * 3000}, statuses=frozenset({307, 404, 414, 422}), only_safe=True)
        yield Case(f"{name} a path", path={name: "..%2f..%2fetc%2fpasswd"}, statuses=frozenset({400, 404, 422}))
    for name, schema in parameters(operation, "query").items():
        yield Case(f"NUL in {name}", query={name: "a\x00b"})
        if types_of(schema) <= {"integer", "null"}:
            yield Case(f"{name} negative", query={name: "-1"}, names=frozenset({name}))
            yield Case(f"{name} enormous", query={name: str(ENORMOUS)}, names=frozenset({name}))
            yield Case(f"{name} no number", query={name: "many"}, names=frozenset({name}))
        else:
            yield Case(f"{name} long", query={name: "x" * 6000}, names=frozenset({name}), only_safe=True)
            yield Case(f"{name} strange", query={name: "%' OR 1=1 --\u202e"}, only_safe=True)


def _bodies(operation: Operation, body: Any) -> Iterator[Case]:
    schema = body_schema(operation)
    if schema is None:
        return
    properties: Mapping[str, Any] = schema.get("properties", {})
    yield Case("no JSON", content=b'{"a": ')
    yield Case("not UTF-8", content=b'{"a": "\xff\xfe"}')
    yield Case("NaN", content=b'{"a": NaN}')
    yield Case("deep", content=b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}")
    yield Case("large", content=b'{"a": "' + b"x" * LARGE_BYTES + b'"}', statuses=frozenset({413, 422}))
    for value in WRONG.values():
        if not isinstance(value, dict if schema.get("type") == "object" else list):
            yield Case(f"body {value}", content=_encoded(value))
    wrong = {name: _wrong(one) for name, one in properties.items()}
    named = {name: value for name, value in wrong.items() if value is not None}
    if named:
        yield Case("wrong types", content=_encoded(named), names=frozenset(named))
    if not isinstance(body, dict):
        return
    texts = [name for name, one in properties.items() if "string" in types_of(one)]
    for name in texts:
        text = "x" * _too_long(properties[name])
        # What no id, phase or status can be may be unknown instead.
        refused = frozenset({400, 404, 409, 413, 422})
        yield Case(
            f"{name} over-long", content=_encoded(body | {name: text}), names=frozenset({name}), statuses=refused
        )
    for name in texts[:1] or list(properties)[:1]:
        yield Case("NUL in a text", content=_encoded(body | {name: "a\x00b"}))
        yield Case("half a surrogate", content=json.dumps(body | {name: "\ud800"}).encode())
    required = [name for name in schema.get("required", ()) if name in body]
    if required:
        rest = {name: value for name, value in body.items() if name not in required}
        yield Case("nothing that is required", content=_encoded(rest), names=frozenset(required))


def _wrong(schema: Mapping[str, Any]) -> Any:
    """A value of a type that the schema does not take; None where it takes all."""
    taken = types_of(schema)
    return next((WRONG[one] for one in ("object", "array", "string") if one not in taken), None)


def _too_long(schema: Mapping[str, Any]) -> int:
    """The length of a text that the field must refuse."""
    schema = resolved(schema)
    limits = [one.get("maxLength") for one in schema.get("anyOf", [schema]) if "maxLength" in one]
    return max(LONG, *(int(limit) + 1 for limit in limits)) if limits else LONGEST


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def unknown(operation: Operation) -> Iterator[Case]:
    """Ids of nothing: well-formed ones are 404, others 404 or 422."""
    for name in operation.parameters:
        # A body that repeats the id contradicts the path.
        contradicts = frozenset({400}) if name in places(operation.recipe.body) else frozenset()
        yield Case(
            f"unknown {name}", path={name: UNKNOWN.get(name) or str(uuid4())}, statuses=frozenset({404}) | contradicts
        )
        yield Case(f"malformed {name}", path={name: "no-such-id"}, statuses=frozenset({404, 422}) | contradicts)


def tables(databases: Databases, service: str) -> list[str]:
    """The service's own tables, without the kit's."""
    found = databases.rows(
        service,
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace ORDER BY relname",
    )
    left_out = {*KIT, *FOLDED}
    return [name for one in found if (name := one["relname"]) not in left_out and not name.startswith(KIT_PREFIXES)]


def fingerprint(databases: Databases, service: str) -> dict[str, tuple[int, int]]:
    """Table → (rows, a sum over the digests of all rows), but for what clock work writes."""
    parts = []
    for table in tables(databases, service):
        left_out = ", ".join(f"'{column}'" for column in CLOCK_WORK.get(table, ()))
        row = f"(to_jsonb(t) - ARRAY[{left_out}])::text" if left_out else "t::text"
        parts.append(
            f"SELECT '{table}' AS name, count(*) AS rows, coalesce(sum(hashtextextended({row}, 0)), 0) AS digest "
            f'FROM "{table}" t'
        )
    return {
        one["name"]: (one["rows"], int(one["digest"])) for one in databases.rows(service, " UNION ALL ".join(parts))
    }
