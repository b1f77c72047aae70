"""A process that dies between its commit and its answer: the same Idempotency-Key makes nothing a second time."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from servicekit.db import idempotency
from servicekit.testing.problems import assert_problem

from .conftest import Identity, Person

KEYS = "/api/v1/auth/api-keys"


class Died(BaseException):
    """What ends a request as the end of its process would: nothing after the commit runs."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: Any) -> None:
        raise Died

    monkeypatch.setattr(idempotency, "complete", die)
    monkeypatch.setattr(idempotency, "release", die)


async def count(identity: Identity, statement: str) -> int:
    async with identity.running.service.db.reader() as tx:
        return int(await (await tx.connection()).fetchval(statement))


async def twice(identity: Identity, person: Person, path: str, body: dict[str, Any] | None) -> None:
    """Ask, lose the answer, wait until an abandoned key may be taken over, and ask again."""
    headers = person.headers | {"Idempotency-Key": f"key-{path}"}
    with contextlib.suppress(Died):
        await identity.http.post(path, json=body, headers=headers)
    async with identity.running.service.db.uow() as tx:
        await (await tx.connection()).execute(
            "UPDATE idempotency_keys SET claimed_at = claimed_at - interval '61 seconds'"
        )
    try:
        again = await identity.http.post(path, json=body, headers=headers)
    except Died:
        pytest.fail(f"{path} ran a second time")
    # The answer held a secret, so it is not kept, and this says so.
    assert_problem(again, 409, "idempotency.answer_not_kept")


@pytest.mark.usefixtures("dying")
async def test_api_keys_and_invitations_are_made_once(identity: Identity) -> None:
    owner = await identity.person()
    organization = await identity.organization(owner)
    role = await identity.http.get(f"/api/v1/organizations/{organization}/roles", headers=owner.headers)
    [viewer] = [item["id"] for item in role.json() if item["name"] == "viewer"]
    key = (await identity.http.post(KEYS, json={"name": "first"}, headers=owner.headers)).json()

    await twice(identity, owner, KEYS, {"name": "second"})
    assert await count(identity, "SELECT count(*) FROM api_keys") == 2
    await twice(identity, owner, f"{KEYS}/{key['id']}/rotate", None)
    assert await count(identity, "SELECT count(*) FROM api_keys") == 3

    path = f"/api/v1/organizations/{organization}/invitations"
    await twice(identity, owner, path, {"email": "bob@example.com", "role_id": viewer})
    assert await count(identity, "SELECT sum(sent_count) FROM invitations") == 1
    [invitation] = (await identity.http.get(path, headers=owner.headers)).json()["items"]
    await twice(identity, owner, f"{path}/{invitation['id']}/resend", None)
    assert await count(identity, "SELECT sum(sent_count) FROM invitations") == 2
