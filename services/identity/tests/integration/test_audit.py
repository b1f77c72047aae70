"""The audit trail: recorded with the action, chained, read by those whom it concerns, verified."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from identity_service import admin
from identity_service.audit import service as audit
from identity_service.audit.service import AuditService
from identity_service.envelope.rules import Envelope
from servicekit.testing.problems import assert_problem

from .conftest import Identity

BASE = "/api/v1/organizations"


def trail(identity: Identity, settings: dict[str, Any]) -> AuditService:
    """The trail of the running service, to be sealed and verified at will."""
    return AuditService(identity.running.service.db, Envelope.from_base64(settings["envelope_key"]))


async def execute(identity: Identity, statement: str, *values: Any) -> Any:
    async with identity.running.service.db.uow() as tx:
        return await (await tx.connection()).fetch(statement, *values)


async def record(identity: Identity, action: str, **values: Any) -> None:
    async with identity.running.service.db.uow() as tx:
        await audit.record(tx, action, actor_id="ada", **values)


class TestChain:
    async def test_concurrent_actions_and_sealers_make_whole_chains(
        self, identity: Identity, settings: dict[str, Any]
    ) -> None:
        organizations = [str(uuid.uuid4()), str(uuid.uuid4()), None]
        one, two = trail(identity, settings), trail(identity, settings)
        for _ in range(3):
            await asyncio.gather(
                *(
                    record(identity, "thing.done", organization_id=organization, number=number)
                    for organization in organizations
                    for number in range(10)
                ),
                one.seal_due(),
                two.seal_due(),
            )
        await one.seal_due()
        rows = await execute(
            identity, "SELECT organization_id, position FROM audit_log WHERE action = 'thing.done' ORDER BY position"
        )
        for organization in organizations:
            positions = [row["position"] for row in rows if row["organization_id"] == organization]
            assert positions == list(range(1, 31))
        results = await one.verify()
        assert [result.broken for result in results] == [None] * 3
        assert sum(result.entries for result in results) == 90

    async def test_an_action_that_fails_leaves_no_entry(self, identity: Identity) -> None:
        with pytest.raises(RuntimeError, match="undone"):
            async with identity.running.service.db.uow() as tx:
                await audit.record(tx, "thing.done", actor_id="ada")
                raise RuntimeError("undone")
        assert await execute(identity, "SELECT id FROM audit_log WHERE action = 'thing.done'") == []

    @pytest.mark.parametrize(
        ("tamper", "position", "reason"),
        [
            ("UPDATE audit_log SET details = '{\"number\": 99}' WHERE position = 3", 3, "was changed or moved"),
            ("UPDATE audit_log SET actor_id = 'eve' WHERE position = 1", 1, "was changed or moved"),
            ("DELETE FROM audit_log WHERE position = 2", 2, "is missing"),
            ("DELETE FROM audit_log WHERE position = 5", 5, "missing at the end"),
            (
                "UPDATE audit_log SET position = CASE position WHEN 2 THEN -4 ELSE -2 END WHERE position IN (2, 4);"
                "UPDATE audit_log SET position = -position WHERE position < 0",
                2,
                "was changed or moved",
            ),
            ("UPDATE audit_log SET position = NULL WHERE position = 4", 4, "is missing"),
            ("DELETE FROM audit_heads", 1, "head is missing"),
            ("UPDATE audit_heads SET position = 4", 4, "head was changed"),
            ("UPDATE audit_heads SET sealed_key = '\\x00'", 1, "key was changed"),
        ],
    )
    async def test_tampering_is_named(
        self,
        identity: Identity,
        settings: dict[str, Any],
        tamper: str,
        position: int,
        reason: str,
    ) -> None:
        for number in range(5):
            await record(identity, "thing.done", organization_id="org", number=number)
        service = trail(identity, settings)
        await service.seal_due()
        assert [result.broken for result in await service.verify()] == [None]
        ids = {row["position"]: row["id"] for row in await execute(identity, "SELECT id, position FROM audit_log")}
        async with identity.running.service.db.uow() as tx:
            await (await tx.connection()).execute(tamper)
        [broken] = [result.broken for result in await service.verify() if result.broken is not None]
        assert broken.position == position
        assert reason in broken.reason
        if "changed or moved" in reason and "CASE" not in tamper:
            assert broken.entry_id == ids[position]

    async def test_an_entry_kept_from_the_sealer_is_named(self, identity: Identity, settings: dict[str, Any]) -> None:
        await record(identity, "thing.done")
        await execute(identity, "UPDATE audit_log SET created_at = now() - interval '6 minutes'")
        [result] = await trail(identity, settings).verify()
        assert result.broken is not None
        assert "never sealed" in result.broken.reason

    async def test_the_command_says_what_is_broken(
        self, identity: Identity, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        await record(identity, "thing.done", organization_id="org")
        await trail(identity, settings).seal_due()
        database_url = identity.running.service.settings.database_url
        assert database_url is not None
        monkeypatch.setenv("OMOIOS_DATABASE_URL", database_url)
        monkeypatch.setenv("OMOIOS_ENVELOPE_KEY", settings["envelope_key"])
        assert await asyncio.to_thread(admin.main, ["verify-audit"]) == 0
        assert "1 chains, 1 entries verified, 0 broken." in capsys.readouterr().out
        await execute(identity, "UPDATE audit_log SET action = 'nothing.done'")
        assert await asyncio.to_thread(admin.main, ["verify-audit"]) == 1
        assert "BROKEN organization org: position 1" in capsys.readouterr().out


class TestReading:
    async def test_admins_read_their_organization_by_pages_and_filters(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        admin_, _ = await identity.member(ada, organization, "admin")
        viewer, _ = await identity.member(ada, organization, "viewer")
        other = await identity.person()
        await identity.organization(other)
        path = f"{BASE}/{organization}/audit"
        whole = (await identity.http.get(path, headers=admin_.headers)).json()
        assert [item["action"] for item in whole["items"]] == ["member.added", "member.added", "organization.created"]
        assert {item["organization_id"] for item in whole["items"]} == {organization}
        seen, token = [], None
        for _ in range(3):
            params = {"page_size": 1} | ({"page_token": token} if token else {})
            page = (await identity.http.get(path, params=params, headers=ada.headers)).json()
            seen += page["items"]
            token = page["next_page_token"]
        assert token is None
        assert [item["id"] for item in seen] == [item["id"] for item in whole["items"]]
        made = (await identity.http.get(path, params={"action": "organization.created"}, headers=ada.headers)).json()[
            "items"
        ]
        assert [item["actor_id"] for item in made] == [ada.id]
        later = await identity.http.get(path, params={"since": "2100-01-01T00:00:00Z"}, headers=ada.headers)
        assert later.json()["items"] == []
        assert_problem(await identity.http.get(path, headers=viewer.headers), 403, "auth.forbidden")
        assert_problem(await identity.http.get(path, headers=other.headers), 404, "identity.organization_not_found")
        for params in ({"page_token": "nonsense"}, {"page_size": 0}, {"since": "yesterday"}):
            assert (await identity.http.get(path, params=params, headers=ada.headers)).status_code == 422

    async def test_everybody_reads_his_own_account_and_a_super_admin_all(self, identity: Identity) -> None:
        ada, bob = await identity.person(), await identity.person()
        wrong = {"email": ada.email, "password": "Wrong-1-password!"}
        assert (await identity.http.post("/api/v1/auth/login", json=wrong)).status_code == 401
        own = (await identity.http.get("/api/v1/users/me/audit", headers=ada.headers)).json()["items"]
        assert [item["action"] for item in own] == ["login_failed", "login_success", "user.registered"]
        theirs = f"/api/v1/users/{ada.id}/audit"
        assert_problem(await identity.http.get(theirs, headers=bob.headers), 403, "auth.forbidden")
        root = await identity.super_admin()
        assert (await identity.http.get(theirs, headers=root.headers)).json()["items"] == own
        unknown = await identity.http.get(f"{BASE}/{uuid.uuid4()}/audit", headers=root.headers)
        assert_problem(unknown, 404, "identity.organization_not_found")
        nobody = await identity.http.get(f"/api/v1/users/{uuid.uuid4()}/audit", headers=root.headers)
        assert_problem(nobody, 404, "identity.user_not_found")
