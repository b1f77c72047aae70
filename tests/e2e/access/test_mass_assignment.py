"""A body with fields that are not its operation's: refused, or none of the values takes effect.

Added are all columns of the service's own tables and all fields of its answers that the operation's schema does not
name. Every text, number, time and id that is added tells its operation, and is looked for in every table afterwards;
truth values and states must be answered as they are without the additions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import httpx2
import pytest

from tests.e2e.access.databases import Databases
from tests.e2e.access.hostile import body_schema, resolved, tables, types_of
from tests.e2e.access.operations import Operation, operations
from tests.e2e.access.recipe import filled
from tests.e2e.access.rooms import Rooms

SERVICES = ("identity", "workflow", "agents", "billing", "vcs", "monitoring")
EARLIEST = date(1700, 1, 1)
MARKS = r"assigned-\d{4}|ba5eba11-0000-7000-8000-\d{12}|\m91827\d{4}\M|\m17\d\d-\d\d-\d\d[ T]"
"""What `value` makes, as PostgreSQL finds it in the text of a row."""
KINDS = {
    "boolean": "boolean",
    "integer": "integer",
    "bigint": "integer",
    "smallint": "integer",
    "numeric": "integer",
    "double precision": "integer",
    "uuid": "uuid",
    "timestamp with time zone": "date-time",
    "jsonb": "object",
    "ARRAY": "array",
}
"""Type of a column → kind of a value; text otherwise."""


def value(kind: str, number: int) -> Any:
    """A value of this kind that tells the operation's number, below 10000; a truth value cannot."""
    text = f"assigned-{number:04d}"
    values: dict[str, Any] = {
        "boolean": True,
        "integer": 918_270_000 + number,
        "uuid": f"ba5eba11-0000-7000-8000-{number:012d}",
        "date-time": f"{EARLIEST + timedelta(days=number)}T00:00:00Z",
        "object": {text: text},
        "array": [text],
    }
    return values.get(kind, text)


def kind_of(schema: Mapping[str, Any]) -> str:
    """The kind of a field of an answer; an enumeration is the kind `enum`."""
    schema = resolved(schema)
    if "enum" in schema:
        return "enum"
    if schema.get("format") in ("uuid", "date-time"):
        return str(schema["format"])
    types = types_of(schema) - {"null"}
    return types.pop() if len(types) == 1 else "string"


def fields(schema: Mapping[str, Any], seen: set[int]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and schema of every field at any depth."""
    schema = resolved(schema)
    if id(schema) in seen:
        return
    seen.add(id(schema))
    for name, one in schema.get("properties", {}).items():
        yield name, one
        yield from fields(one, seen)
    for one in (*schema.get("anyOf", ()), *([schema["items"]] if isinstance(schema.get("items"), dict) else [])):
        yield from fields(one, seen)


def answered(service: str) -> dict[str, Mapping[str, Any]]:
    """The fields of all successful answers of a service."""
    found: dict[str, Mapping[str, Any]] = {}
    for operation in operations():
        for status, answer in operation.document["responses"].items():
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            if operation.service == service and status.startswith("2") and schema is not None:
                found |= dict(fields(schema, set()))
    return found


def columns(databases: Databases, service: str) -> dict[str, str]:
    """Column → kind of value, of the service's own tables."""
    found = databases.rows(
        service,
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = ANY($1::text[])",
        tables(databases, service),
    )
    return {one["column_name"]: KINDS.get(one["data_type"], "string") for one in found}


def leaves(document: Any) -> dict[str, Any]:
    """Name → truth value or text at the top of an answer or one level below it."""
    found: dict[str, Any] = {}
    if isinstance(document, dict):
        for name, one in document.items():
            found |= {name: one} if isinstance(one, bool | str) else {}
            found |= (
                {f"{name}.{key}": it for key, it in one.items() if isinstance(it, bool | str)}
                if isinstance(one, dict)
                else {}
            )
    return found


def enriched(
    body: Any, schema: Mapping[str, Any], added: Mapping[str, Any], hidden: frozenset[str] = frozenset()
) -> Any:
    """The body with additions in it and in every object at any depth whose schema names its fields.

    What an object's own schema names is not added to it, `hidden` apart; where a value may be anything, nothing is.
    """
    schema = resolved(schema)
    if isinstance(body, list):
        return [enriched(one, schema.get("items", {}), added) for one in body]
    properties: Mapping[str, Any] = schema.get("properties", {})
    if not isinstance(body, dict) or not properties:
        return body
    foreign = {name: one for name, one in added.items() if name not in properties or name in hidden}
    return foreign | {name: enriched(one, properties.get(name, {}), added) for name, one in body.items()}


def nested(
    schema: Mapping[str, Any], path: tuple[str, ...] = (), seen: tuple[int, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Paths of the objects below a schema that name their fields; `*` stands for the elements of a list."""
    schema = resolved(schema)
    if id(schema) in seen:
        return
    seen = (*seen, id(schema))
    if path and schema.get("properties"):
        yield path
    for one in schema.get("anyOf", ()):
        yield from nested(one, path, seen)
    if schema.get("type") == "array":
        yield from nested(schema.get("items", {}), (*path, "*"), seen)
    for name, one in schema.get("properties", {}).items():
        yield from nested(one, (*path, name), seen)


def at(body: Any, path: tuple[str, ...]) -> Any:
    """What a body has at a path; None where it has nothing."""
    for name in path:
        inner = body[0] if name == "*" and isinstance(body, list) and body else None
        body = body.get(name) if isinstance(body, dict) else inner
    return body


def send(
    rooms: Rooms, operation: Operation, added: Mapping[str, Any], hidden: frozenset[str] = frozenset()
) -> httpx2.Response:
    """The rightful caller's call on new rows, with what is added to the body."""
    rows = rooms.of(operation.places, fresh=True)
    rooms.keep(rows)
    token = rooms.cast.token(operation.recipe.by, rows, operation.access)
    http = rooms.cast.world.http
    answer = http.request(
        operation.method,
        operation.address(rows),
        params=filled(operation.recipe.query, rows) or None,
        json=enriched(filled(operation.recipe.body, rows) or {}, body_schema(operation) or {}, added, hidden),
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )
    http.cookies.clear()
    return answer


@dataclass
class Told:
    """What the calls of a service's operations showed."""

    schemas: Mapping[str, Mapping[str, Any]]
    kinds: Mapping[str, str]
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def judged(
    rooms: Rooms, operation: Operation, number: int, told: Told, hidden: frozenset[str] = frozenset()
) -> Iterator[str]:
    """What is wrong with the answer to a body with additions, seen beside the answer to the body alone.

    `hidden`: fields of the operation that are added as if they were none of its own.
    """
    schemas, kinds = told.schemas, told.kinds
    plain = send(rooms, operation, {})
    said = leaves(plain.json()) if plain.is_success and plain.content else {}
    added: dict[str, Any] = {}
    settled: set[str] = set()
    for name in sorted({*schemas, *kinds}):
        kind = kinds.get(name) or kind_of(schemas[name])
        before = next((one for path, one in said.items() if path.rpartition(".")[2] == name), None)
        added[name] = value(kind, number)
        if isinstance(before, bool):
            added[name] = not before
            settled.add(name)
        elif name in schemas and kind_of(schemas[name]) == "enum":
            added[name] = next(one for one in reversed(resolved(schemas[name])["enum"]) if one != before)
            settled.add(name)
    answer = send(rooms, operation, added, hidden)
    if answer.status_code == 422 and plain.status_code != 422:
        told.refused.append(operation.id)
        return
    if answer.status_code != plain.status_code:
        yield f"{operation.id}: {answer.status_code} with additions, {plain.status_code} without: {answer.text[:200]}"
        return
    told.accepted.append(operation.id)
    marked = re.findall(MARKS.replace(r"\m", r"\b").replace(r"\M", r"\b"), answer.text)
    if marked:
        yield f"{operation.id} answers {marked[0]}, which was added: {answer.text[:300]}"
    now = leaves(answer.json()) if answer.is_success and answer.content else {}
    for path, one in said.items():
        if path.rpartition(".")[2] in settled and now.get(path) != one:
            yield f"{operation.id}: {path} is {now.get(path)} with additions, {one} without"


def kept(databases: Databases, service: str) -> Iterator[str]:
    """Rows of any table, the kit's too, in which an added value stands."""
    every = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = "
    for table in databases.rows(service, every + "'public'::regnamespace"):
        name = table["relname"]
        for row in databases.rows(service, f'SELECT t::text AS row FROM "{name}" t WHERE t::text ~ $1', MARKS):
            yield f"{name} keeps what was added: {row['row'][:300]}"


def super_admins(databases: Databases) -> set[str]:
    return {str(one["id"]) for one in databases.rows("identity", "SELECT id FROM users WHERE is_super_admin")}


@pytest.mark.parametrize("service", SERVICES)
def test_a_body_sets_nothing_but_its_own_fields(rooms: Rooms, databases: Databases, service: str) -> None:
    told = Told(answered(service), columns(databases, service))
    admins = super_admins(databases)
    wrong = []
    for number, operation in enumerate(operations()):
        if operation.service == service and operation.writes and body_schema(operation) is not None:
            wrong += judged(rooms, operation, number, told)
    wrong += kept(databases, service)
    assert not wrong, "\n".join(wrong)
    assert super_admins(databases) == admins
    assert len(told.accepted) > len(told.refused), f"hardly any call was accepted: {told.refused}"


def test_every_object_within_a_body_is_in_its_recipe() -> None:
    """So that additions reach it."""
    absent = [
        f"{operation.id}: the recipe's body has no {'.'.join(path)}"
        for operation in operations()
        for path in nested(body_schema(operation) or {})
        if at(operation.recipe.body, path) is None
    ]
    assert not absent, "\n".join(absent)


def test_an_added_value_would_be_found(databases: Databases) -> None:
    for kind in ("integer", "uuid", "date-time", "object", "array", "string"):
        row = databases.rows("identity", "SELECT $1::text ~ $2 AS found", str(value(kind, 42)), MARKS)
        assert row[0]["found"], kind


def test_a_field_that_takes_effect_would_be_found(rooms: Rooms, databases: Databases) -> None:
    operation = next(one for one in operations() if one.id == "projects.update_project")
    told = Told(answered("workflow"), columns(databases, "workflow"))
    settable = frozenset({"name", "autonomous_execution_enabled"})
    found = "\n".join(judged(rooms, operation, 9999, told, hidden=settable))
    assert "answers assigned-9999" in found
    assert "autonomous_execution_enabled is True with additions" in found
    assert any("projects keeps" in one and "assigned-9999" in one for one in kept(databases, "workflow"))
