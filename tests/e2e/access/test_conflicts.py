"""What the state of things refuses, through the gateway: the declared code in a problem, and nothing has changed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import httpx2
import pytest

from servicekit.db import STALE_VERSION
from servicekit.describe import describe
from servicekit.errors import IDEMPOTENCY_IN_FLIGHT, ErrorSpec, Kind
from servicekit.http.replay import ANSWER_NOT_KEPT
from servicekit.testing.problems import assert_problem
from tests.e2e.access.hostile import fingerprint
from tests.e2e.access.operations import Operation, document, operations
from tests.e2e.access.recipe import PLACE, filled, places
from tests.e2e.access.refusals import NEVER_PUBLIC, REFUSALS, Refusal
from tests.e2e.access.rooms import Rooms, Rows
from tests.e2e.world import eventually

SERVICES = ("identity", "workflow", "agents", "monitoring", "vcs")
TRIES = 5
"""Clock work may change a row between two looks; a refused request would do so each time, for each has new rows."""
QUIET_S = 0.3
OF_THE_KIT = frozenset({IDEMPOTENCY_IN_FLIGHT.code, ANSWER_NOT_KEPT.code})
"""Codes of an Idempotency-Key, provoked by tests of their own below."""


def by_id() -> Mapping[str, Operation]:
    return {operation.id: operation for operation in operations()}


def declared() -> set[tuple[str, str]]:
    """(operation, code) of every conflict that the OpenAPI document names for an operation."""
    found = set()
    for item in document()["paths"].values():
        for operation in item.values():
            answer = operation.get("responses", {}).get("409", {})
            examples = answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
            found |= {(operation["operationId"], code) for code in examples}
    return found


def test_every_conflict_is_provoked_or_explained() -> None:
    provoked = {(one.operation, one.code) for one in REFUSALS}
    assert declared() - provoked == set(), "declared, and not provoked: add a Refusal to tests/e2e/access/refusals"
    undeclared = {(one.operation, one.code) for one in REFUSALS if one.status == 409} - declared()
    assert undeclared == set(), "provoked, and not declared on the route"
    of_services = {
        spec.code: spec.kind for service in describe() for spec in vars(service.errors).values()
        if isinstance(spec, ErrorSpec)
    }  # fmt: skip
    known = {code for code, kind in of_services.items() if kind is Kind.CONFLICT}
    assert len(known) > 30
    known |= {spec.code for spec in (STALE_VERSION, IDEMPOTENCY_IN_FLIGHT, ANSWER_NOT_KEPT)}
    covered = {code for _, code in provoked} | OF_THE_KIT
    assert known - covered == set(NEVER_PUBLIC)
    assert not covered & set(NEVER_PUBLIC)


def needed(refusal: Refusal) -> set[str]:
    operation, recipe = by_id()[refusal.operation], refusal.recipe
    path = {name: recipe.path.get(name, f"{{{name}}}") for name in operation.parameters}
    return places(path) | places(recipe.query) | places(recipe.body) | refusal.further


def send(rooms: Rooms, refusal: Refusal, rows: Rows) -> httpx2.Response:
    """The refused call."""
    operation, recipe = by_id()[refusal.operation], refusal.recipe
    own = {name: filled(recipe.path.get(name, f"{{{name}}}"), rows) for name in operation.parameters}
    token = filled(refusal.token, rows) if refusal.token else rooms.cast.tokens[recipe.by]
    body = {} if recipe.body is None else {"json": filled(recipe.body, rows)}
    answer = rooms.cast.world.http.request(
        operation.method,
        PLACE.sub(lambda found: own[found[1]], operation.template),
        params=filled(recipe.query, rows) or None,
        headers={"Authorization": f"Bearer {token}"},
        **body,
    )
    rooms.cast.world.http.cookies.clear()
    return answer


def wrong_with(refusal: Refusal, answer: httpx2.Response) -> str | None:
    """What is wrong with the answer, None if it is the problem that it must be."""
    try:
        body = assert_problem(answer, refusal.status, refusal.code)
        assert body["request_id"] == answer.headers["X-Request-ID"]
        # The contract's answers whose `detail` is no text have no more members than these.
        assert not isinstance(body["detail"], str) or body["type"] == f"urn:omoios:problem:{refusal.code}"
    except AssertionError as error:
        return f"{refusal.name}: {error}"
    return None


def quiet(rooms: Rooms, service: str) -> dict[str, tuple[int, int]]:
    """The service's rows once the other services have done with those that were just made."""
    seen: list[dict[str, tuple[int, int]]] = []

    def settled() -> bool:
        seen.append(fingerprint(rooms.cast.databases, service))
        return len(seen) > 1 and seen[-1] == seen[-2]

    eventually(settled, f"the rows of {service} stay as they are", pause_s=QUIET_S)
    return seen[-1]


@pytest.mark.parametrize("service", SERVICES)
def test_the_state_refuses_and_stays(rooms: Rooms, service: str) -> None:
    mine = [one for one in REFUSALS if by_id()[one.operation].service == service]
    names = set().union(*map(needed, mine))
    for attempt in range(TRIES):
        rows = rooms.of(names, fresh=True)
        before = quiet(rooms, service)
        wrong = [sentence for one in mine if (sentence := wrong_with(one, send(rooms, one, rows)))]
        after = fingerprint(rooms.cast.databases, service)
        assert not wrong, "\n".join(wrong)
        if before == after:
            return
        changed = sorted(table for table in after if after[table] != before.get(table))
        assert attempt + 1 < TRIES, f"refused requests changed rows of {', '.join(changed)}"


def with_key(rooms: Rooms, path: str, key: str, body: object) -> httpx2.Response:
    """A POST by the owner with an Idempotency-Key."""
    headers = {"Authorization": f"Bearer {rooms.owner.token}", "Idempotency-Key": key}
    return rooms.cast.world.http.post(f"/api/v1{path}", json=body, headers=headers)


def test_a_key_in_flight_is_refused_and_free_afterwards(rooms: Rooms) -> None:
    key, databases = secrets.token_hex(8), rooms.cast.databases
    body = {"organization_id": rooms.shared["organization_id"], "name": f"Keyed {key}"}
    # The lock that a request holds until its commit, on whichever instance it runs.
    lock = "hashtextextended($1::text || chr(31) || $2::text, 0)"
    held = (f"user:{rooms.owner.user_id}", key)
    databases.rows("workflow", f"SELECT pg_advisory_lock({lock})", *held)
    try:
        assert_problem(with_key(rooms, "/projects", key, body), 409, IDEMPOTENCY_IN_FLIGHT.code)
    finally:
        databases.rows("workflow", f"SELECT pg_advisory_unlock({lock})", *held)
    made = with_key(rooms, "/projects", key, body)
    assert made.is_success, made.text
    again = with_key(rooms, "/projects", key, body)
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (made.json()["id"], "true")


def test_an_answer_with_a_secret_is_given_once(rooms: Rooms) -> None:
    key, body = secrets.token_hex(8), {"name": "given once"}
    made = with_key(rooms, "/auth/api-keys", key, body)
    assert made.is_success, made.text
    assert_problem(with_key(rooms, "/auth/api-keys", key, body), 409, ANSWER_NOT_KEPT.code)
    named = [one for one in rooms.owner.get("/auth/api-keys") if one["name"] == "given once"]
    assert [one["id"] for one in named] == [made.json()["id"]]
