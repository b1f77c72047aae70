"""Bad input to every operation through the gateway: 4xx that names the field, no fault, an unchanged database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.e2e.access.hostile import Case, cases, fingerprint, unknown
from tests.e2e.access.operations import Operation, operations
from tests.e2e.access.recipe import PLACE, Scope, filled
from tests.e2e.access.rooms import Rooms, Rows

SERVICES = ("identity", "workflow", "agents", "billing", "vcs", "monitoring")
TRIES = 8
"""Clock work of a service may change a row between two looks; bad requests would do so each time."""
PAUSE_S = 1.0
"""Before a repetition, so that a sweep over many rows has an end."""
# Operations whose ids name no row: a phase, a provider, an agent that only commits know.
FREE_IDS = {"phase_id", "to_phase", "provider", "agent_id"}


def send(rooms: Rooms, operation: Operation, rows: Rows, case: Case) -> httpx2.Response:
    """The good request with the bad parts in it, as the rightful caller."""
    places = {name: filled(operation.recipe.path.get(name, f"{{{name}}}"), rows) for name in operation.parameters}
    places = {name: quote(value, safe="") for name, value in places.items()} | dict(case.path)
    query = {**filled(operation.recipe.query, rows), **case.query}
    token = rooms.cast.token(operation.recipe.by, rows, operation.access)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    body: dict[str, Any] = {}
    if case.content is not None:
        body = {"content": case.content}
        headers["Content-Type"] = "application/json"
    elif operation.recipe.body is not None:
        body = {"json": filled(operation.recipe.body, rows)}
    http = rooms.cast.world.http
    path = PLACE.sub(lambda found: places[found[1]], operation.template)
    request = http.build_request(operation.method, path, params=query or None, headers=headers, **body)
    answer = http.send(request, stream=True)
    http.cookies.clear()
    # A stream that has begun has no end; what is refused has a length.
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.close()
    else:
        answer.read()
    return answer


def judged(operation: Operation, case: Case, answer: httpx2.Response) -> str | None:
    """What is wrong with an answer."""
    status = answer.status_code
    if case.only_safe and status < 400:
        return None
    where = f"{operation.id}, {case.what}"
    if status >= 500 or status not in case.statuses | ({400, 404, 409} if case.only_safe else set()):
        return f"{where}: {status}, not {sorted(case.statuses)}: {answer.text[:200] if answer.is_closed else ''}"
    if status == 307 or (status == 400 and case.path and not answer.content):
        return None
    kind = answer.headers.get("content-type", "")
    if not kind.startswith(("application/problem+json", "application/json")) or "code" not in answer.json():
        return f"{where}: {status} is no problem document: {kind} {answer.text[:120]}"
    if status == 422 and case.names:
        detail = answer.json()["detail"]
        listed = [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
        named = {part for one in listed for part in one["loc"]}
        # The hot operations' decoder stops at the first field that is wrong.
        missed = case.names - named
        if missed == case.names or (missed and not operation.id.startswith("sandboxes.record_")):
            return f"{where}: 422 does not name {sorted(missed)}: {answer.text[:200]}"
    return None


def attacked(rooms: Rooms, operation: Operation, found: Iterable[Case]) -> Iterator[str]:
    """What is wrong with the answers to these cases, and whether one of them changed a row."""
    rows = rooms.of(operation.places, fresh=operation.writes)
    listed = list(found)
    before: dict[str, tuple[int, int]] = {}
    for attempt in range(TRIES):
        rooms.keep(rows)
        before = fingerprint(rooms.cast.databases, operation.service)
        wrong = [
            sentence for case in listed if (sentence := judged(operation, case, send(rooms, operation, rows, case)))
        ]
        after = fingerprint(rooms.cast.databases, operation.service)
        if wrong or before == after:
            yield from wrong
            return
        if attempt + 1 == TRIES:
            changed = sorted(table for table in after if after[table] != before.get(table))
            yield f"{operation.id}: refused requests changed rows of {', '.join(changed)}"
        time.sleep(PAUSE_S)


def of_service(service: str) -> list[Operation]:
    return [operation for operation in operations() if operation.service == service]


@pytest.mark.parametrize("service", SERVICES)
def test_bad_input_is_refused_and_changes_nothing(rooms: Rooms, service: str) -> None:
    wrong = []
    for operation in of_service(service):
        body = filled(operation.recipe.body, rooms.of(operation.places, fresh=False))
        wrong += attacked(rooms, operation, cases(operation, body))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("service", SERVICES)
def test_ids_of_nothing_are_not_found(rooms: Rooms, service: str) -> None:
    wrong = []
    for operation in of_service(service):
        ids = [case for case in unknown(operation) if not FREE_IDS & set(case.path) or operation.service == "agents"]
        if ids and operation.recipe.scope is not Scope.ONESELF:
            wrong += attacked(rooms, operation, ids)
    assert not wrong, "\n".join(wrong)
