"""Headers by which a client says who it is, sent to every operation at its service's own port, past the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx2
import pytest

from gateway_edge.routes import load
from tests.e2e.access.callers import ANSWERED, expected
from tests.e2e.access.operations import Operation, operations
from tests.e2e.access.recipe import filled
from tests.e2e.access.rooms import Rooms, Rows

SERVICES = ("identity", "workflow", "agents", "billing", "vcs", "monitoring")
# What the gateway removes, metadata of our own calls and events, and what proxies in front of other programs assert.
NAMES = sorted(
    {
        *load().removed_request_headers,
        *("X_User_Id", "X-Internal-User", "X-Super-Admin", "X-Agent-Id", "X-Session-Id", "X-Jwt-Claims"),
        *("X-Amzn-Oidc-Identity", "X-Goog-Authenticated-User-Id", "X-Ms-Client-Principal", "Omoios-Principal"),
        *("Subject", "Organization", "Sub"),
    }
)


def claims(rooms: Rooms) -> list[dict[str, str]]:
    """All names at once, with each thing that could be taken for the first tenant's owner, his rights or a service."""
    owner = rooms.owner.user_id
    values = (owner, f"user:{owner}", rooms.cast.tenant.organization_id, "true", "workflow")
    return [dict.fromkeys(NAMES, value) for value in values]


def send(
    http: httpx2.Client, rooms: Rooms, operation: Operation, caller: str, rows: Rows, forged: Mapping[str, str]
) -> int:
    """The status of the caller's request with these headers."""
    token = rooms.cast.token(caller, rows, operation.access)
    body = {} if operation.recipe.body is None else {"json": filled(operation.recipe.body, rows)}
    answer = http.request(
        operation.method,
        operation.address(rows),
        params=filled(operation.recipe.query, rows) or None,
        headers={**forged, **({} if token is None else {"Authorization": f"Bearer {token}"})},
        **body,
    )
    return answer.status_code


def believed(rooms: Rooms, http: httpx2.Client, operation: Operation) -> Iterator[str]:
    """Where somebody got further than he would without the headers."""
    rows = rooms.of(operation.places, fresh=False)
    for caller in ("nobody", "outsider"):
        wanted = expected(caller, operation.access, operation.recipe)
        if wanted == ANSWERED:
            continue
        for forged in claims(rooms):
            status = send(http, rooms, operation, caller, rows, forged)
            if status != wanted:
                yield f"{operation.id} by {caller} as {forged[NAMES[0]]!r}: {status}, not {wanted}"


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_believes_a_header(rooms: Rooms, service: str) -> None:
    port = rooms.cast.world.client.stack().environments.plan.http(service)
    mine = [one for one in operations() if one.service == service and not one.access.public]
    assert mine
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
        wrong = [sentence for operation in mine for sentence in believed(rooms, http, operation)]
    assert not wrong, "\n".join(wrong)
