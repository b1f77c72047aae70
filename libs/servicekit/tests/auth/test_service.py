"""Access in a running service: HTTP edge, replica tables, and identity answering by RPC."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter

from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from servicekit import context
from servicekit.auth import Access, AccessTable, CurrentUser
from servicekit.auth.identity import IdentityClient
from servicekit.auth.replica import AccessReplica
from servicekit.auth.setup import access_replica_source
from servicekit.db import Database
from servicekit.errors import ErrorSpec, Kind
from servicekit.host import Service
from servicekit.rpc import RpcChannels
from servicekit.settings import ServiceSettings

MIGRATIONS = Path(__file__).parent / "migrations_fixture"
THING_NOT_FOUND = ErrorSpec("things.not_found", Kind.NOT_FOUND, "This thing does not exist.")


class Identity(IdentityServiceServicer):
    """Identity with the memberships that a test puts in."""

    def __init__(self) -> None:
        self.memberships: list[pb.Membership] = []
        self.asked: list[list[str]] = []

    async def BatchGetMemberships(self, request: Any, _context: object) -> pb.BatchGetMembershipsResponse:
        self.asked.append(list(request.user_ids))
        return pb.BatchGetMembershipsResponse(
            memberships=[item for item in self.memberships if item.user_id in request.user_ids]
        )

    async def VerifyApiKey(self, request: Any, _context: object) -> pb.VerifyApiKeyResponse:
        if request.key != "omk_good":
            raise ErrorSpec("identity.api_key_not_found", Kind.NOT_FOUND, "No.")()
        return pb.VerifyApiKeyResponse(key_id="key-1", user_id="alice", scopes=["project:read"])

    async def ListMembershipSnapshot(self, request: Any, _context: object) -> pb.ListMembershipSnapshotResponse:
        start = int(request.page_token or 0)
        page = self.memberships[start : start + 2]
        more = start + 2 < len(self.memberships)
        return pb.ListMembershipSnapshotResponse(memberships=page, next_page_token=str(start + 2) if more else "")

    async def ListRevocationSnapshot(self, _request: Any, _context: object) -> pb.ListRevocationSnapshotResponse:
        revoked = pb.Revocation(principal_type="session", principal_id="s-9")
        revoked.not_before.FromDatetime(datetime.now(UTC))
        return pb.ListRevocationSnapshotResponse(revocations=[revoked])


def membership(user: str, org: str, *, role: str = "member", version: int = 1) -> pb.Membership:
    return pb.Membership(
        user_id=user, organization_id=org, role=role, permissions=["project:read"], active=True, version=version
    )


def build(settings: ServiceSettings) -> Service:
    """A service of one room that does nothing but require a permission inside a transaction."""
    db = Database(settings)
    router = APIRouter(tags=["things"])

    @router.get("/api/v1/things/{organization_id}")
    async def get_thing(organization_id: str, user: CurrentUser) -> dict[str, str]:
        async with db.uow() as tx:
            await (await tx.connection()).execute("SELECT 1")
            user.require("project:read", organization_id, THING_NOT_FOUND)
        return {"id": user.user_id, "subject": context.origin_subject.get()}

    return Service(
        name="things",
        settings=settings,
        db=db,
        channels=RpcChannels(settings),
        access=AccessTable(operations={"things.get_thing": Access("project:read")}),
        routers=[router],
    )


@pytest.fixture
async def identity(rpc_stub: Any) -> Any:
    servicer = Identity()
    servicer.target = await rpc_stub(servicer)
    return servicer


async def test_a_membership_that_only_identity_knows_yet_is_found_by_one_refresh(
    service_host: Any, database: Any, signing: Any, identity: Any
) -> None:
    url = database("access", migrations=MIGRATIONS).url
    running = await service_host(build, "things", database_url=url, rpc_targets={"identity": identity.target})
    token = {"Authorization": f"Bearer {signing.user_token('alice')}"}
    identity.memberships.append(membership("alice", "org-1"))
    answered = await running.http.get("/api/v1/things/org-1", headers=token)
    assert (answered.status_code, answered.json()) == (200, {"id": "alice", "subject": "user:alice"})
    assert identity.asked == [["alice"]]
    again = await running.http.get("/api/v1/things/org-1", headers=token)
    assert again.status_code == 200
    assert identity.asked == [["alice"]]
    foreign = await running.http.get("/api/v1/things/org-2", headers=token)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "things.not_found")
    assert identity.asked == [["alice"], ["alice"]]


async def test_who_may_not_call_it_at_all_is_refused_before_the_endpoint(
    service_host: Any, database: Any, signing: Any, identity: Any
) -> None:
    url = database("access", migrations=MIGRATIONS).url
    running = await service_host(build, "things", database_url=url, rpc_targets={"identity": identity.target})

    async def get(credential: str | None) -> tuple[int, str]:
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        answered = await running.http.get("/api/v1/things/org-1", headers=headers)
        return answered.status_code, answered.json().get("code", "")

    assert await get(None) == (401, "auth.unauthenticated")
    assert await get("garbage") == (401, "auth.unauthenticated")
    assert await get(signing.agent("org-1", "agent-1")) == (403, "auth.forbidden")
    assert await get(signing.service("workflow")) == (403, "auth.forbidden")
    assert await get("omk_bad") == (401, "auth.unauthenticated")
    await signing.member("alice", "org-1", "viewer")
    assert await get("omk_good") == (200, "")
    await signing.member("alice", "org-1", permissions=["task:read"])
    assert await get(signing.user_token("bob")) == (404, "things.not_found")
    await signing.revoke("session", "s-1")
    for _ in range(400):
        if running.service.authenticator.revocations.session_revoked("s-1"):
            break
        await asyncio.sleep(0.01)
    assert await get(signing.user_token("alice", session_id="s-1")) == (401, "auth.unauthenticated")


async def test_the_replicas_are_rebuilt_from_identitys_snapshots(access_db: Database, identity: Any) -> None:
    identity.memberships = [membership(f"user-{number}", "org-1") for number in range(5)]
    channels = RpcChannels(ServiceSettings(env="test", rpc_targets={"identity": identity.target}))
    try:
        source = access_replica_source(access_db, channels)
        assert (source.name, await source.rebuild()) == ("access", 6)
        for number in range(5):
            (found,) = await AccessReplica(access_db).memberships_of(f"user-{number}")
            assert (found.organization_id, found.permissions) == ("org-1", {"project:read"})
        key = await IdentityClient(channels.channel("identity")).verify_api_key("omk_good")
        assert key is not None
        assert (key.key_id, key.organization_id, key.expires_at) == ("key-1", None, None)
    finally:
        await channels.close()
