"""Every served operation, called through the gateway as everybody."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.e2e.access.callers import ANSWERED, FOREIGN, KINDS, NO_CREDENTIAL, expected
from tests.e2e.access.operations import Operation, missing, operations
from tests.e2e.access.recipe import Scope, filled
from tests.e2e.access.rooms import Rooms, Rows

CALLERS = (*NO_CREDENTIAL, *KINDS)
SECRETS = ("organization_id", "project_id")


def test_every_operation_has_an_access_entry_and_a_recipe() -> None:
    """A new operation is decided about before it is served."""
    assert not missing(), "\n".join(missing())


def callers_of(operation: Operation) -> list[str]:
    """Who calls: the refused ones first, the rightful one last, because his call may end the row."""
    found = []
    for caller in CALLERS:
        answered = expected(caller, operation.access, operation.recipe) == ANSWERED
        if caller == operation.recipe.by:
            continue
        if caller in ("super_admin", "leaver") or (operation.recipe.alone and answered):
            continue
        if operation.recipe.alone and operation.recipe.scope is Scope.PERSON and caller in ("owner", "viewer"):
            continue
        if operation.access.public and caller != "nobody":
            continue
        found.append(caller)
    found.sort(key=lambda one: expected(one, operation.access, operation.recipe) == ANSWERED)
    return [*found, operation.recipe.by]


def call(rooms: Rooms, operation: Operation, caller: str, rows: Rows) -> tuple[int, str, dict[str, Any] | None]:
    """Status, text and, where it is an object, the document of the answer."""
    token = rooms.cast.token(caller, rows, operation.access)
    body = {} if operation.recipe.body is None else {"json": filled(operation.recipe.body, rows)}
    http = rooms.cast.world.http
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if operation.method == "POST":
        # What an operation keeps under a key must be what it answers: a mix-up of the two is a 500 only with a key.
        headers["Idempotency-Key"] = str(uuid.uuid4())
    request = http.build_request(
        operation.method,
        operation.address(rows),
        params=filled(operation.recipe.query, rows) or None,
        headers=headers,
        **body,
    )
    answer: httpx2.Response = http.send(request, stream=operation.recipe.streams)
    http.cookies.clear()
    if operation.recipe.streams:
        answer.close()
        return answer.status_code, "", None
    document = answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else None
    return answer.status_code, answer.text, document if isinstance(document, dict) else None


def judged(rooms: Rooms, operation: Operation) -> Iterator[str]:
    """What is wrong with the answers to everybody."""
    rows = rooms.of(operation.places, fresh=operation.writes)
    used = False
    for caller in callers_of(operation):
        wanted = expected(caller, operation.access, operation.recipe)
        if wanted == ANSWERED and operation.writes:
            if used:
                rows = rooms.of(operation.places, fresh=True)
            used = True
        rooms.keep(rows)
        status, text, document = call(rooms, operation, caller, rows)
        right = 200 <= status < 300 if wanted == ANSWERED else status == wanted
        # A search that finds nothing of his own tells somebody else's tenant nothing either.
        right |= wanted == ANSWERED and caller in FOREIGN and status == operation.recipe.nothing
        if not right:
            yield f"{operation.id} by {caller}: {status}, not {wanted}: {text[:200]}"
        elif wanted == ANSWERED:
            if document is not None and document.get("success") is False:
                yield f"{operation.id} by {caller}: {text[:200]}"
            if caller in FOREIGN and operation.recipe.scope in (Scope.LISTS, Scope.ONESELF):
                asked = str((operation.address(rows), filled(operation.recipe.query, rows)))
                hidden = [name for name in SECRETS if rooms.shared[name] not in asked]
                told = [name for name in hidden if rooms.shared[name] in text]
                if told:
                    yield f"{operation.id} tells {caller} the {', '.join(told)} of another tenant"


SERVICES = ("edge", "identity", "workflow", "agents", "billing", "vcs", "monitoring")


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_by_everybody(rooms: Rooms, service: str) -> None:
    mine = [operation for operation in operations() if operation.service == service]
    wrong = [sentence for operation in mine for sentence in judged(rooms, operation)]
    assert not wrong, "\n".join(wrong)
