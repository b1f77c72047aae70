"""Keys, tokens over gRPC, revocation across instances, and the snapshots."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from identity_service.envelope.rules import Envelope
from identity_service.mail.service import MailService
from identity_service.main import build
from identity_service.settings import Settings
from identity_service.tokens.service import TokenService
from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from servicekit.db import Database
from servicekit.errors import AppError, Kind
from servicekit.rpc import RpcChannels
from servicekit.rpc.wire import from_rpc_error

from .conftest import SERVICE_SECRET, Identity, Start


@pytest.fixture
async def channels(identity: Identity):
    """The agents service's channels to identity."""
    made = RpcChannels(
        Settings(
            env="test",
            rpc_targets={"identity": f"127.0.0.1:{identity.running.rpc_port}"},
            service_secret=SERVICE_SECRET,
        ),
        service="agents",
    )
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def stub(channels: RpcChannels):
    return IdentityServiceStub(channels.channel("identity"))


def database_url(identity: Identity) -> str:
    url = identity.running.service.settings.database_url
    assert url is not None
    return url


class TestRpc:
    async def test_a_wrong_secret_gets_no_token_and_no_token_gets_nothing(self, identity: Identity) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{identity.running.rpc_port}") as channel:
            bare = IdentityServiceStub(channel)
            for service, secret in (("agents", "wrong"), ("nobody", SERVICE_SECRET), ("agents", "")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await bare.IssueServiceToken(pb.IssueServiceTokenRequest(service=service, secret=secret), timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert from_rpc_error(refused.value, "identity").code == "identity.service_refused"
            with pytest.raises(grpc.aio.AioRpcError) as anonymous:
                await bare.BatchGetUsers(pb.BatchGetUsersRequest(ids=["x"]), timeout=5)
            assert anonymous.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_a_sandbox_token_is_bound_to_its_attempt_and_can_be_revoked(self, identity: Identity, stub) -> None:
        subject = pb.SandboxTokenSubject(
            organization_id="org-1",
            agent_id="agent-1",
            task_id="task-1",
            sandbox_id="sandbox-1",
            attempt=3,
            project_id="p",
        )
        answer = await stub.IssueSandboxTokens(pb.IssueSandboxTokensRequest(subjects=[subject], ttl_s=600))
        token = answer.tokens[0].token
        authenticator = identity.running.service.authenticator
        principal = await authenticator.authenticate_credential(token)
        assert principal.claims["task"] == "task-1"
        assert principal.claims["attempt"] == 3
        assert principal.organization_id == "org-1"
        await stub.RevokePrincipal(pb.RevokePrincipalRequest(principal_type="sandbox", principal_id="sandbox-1"))
        await refused_soon(authenticator, token)

    async def test_bad_requests_are_named(self, stub) -> None:
        for call in (
            stub.IssueSandboxTokens(pb.IssueSandboxTokensRequest(subjects=[pb.SandboxTokenSubject(task_id="x")])),
            stub.RevokePrincipal(pb.RevokePrincipalRequest(principal_type="user", principal_id="x")),
            stub.BatchGetUsers(pb.BatchGetUsersRequest(ids=["x"] * 501)),
        ):
            with pytest.raises(AppError) as error:
                await call
            assert error.value.kind is Kind.INVALID

    async def test_batches_and_snapshots_tell_who_belongs_where(self, identity: Identity, stub) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        viewer, membership = await identity.member(ada, organization, "viewer")
        users = (await stub.BatchGetUsers(pb.BatchGetUsersRequest(ids=[ada.id, viewer.id, "unknown"]))).users
        assert {user.email for user in users} == {ada.email, viewer.email}
        found = (await stub.BatchGetOrganizations(pb.BatchGetOrganizationsRequest(ids=[organization]))).organizations
        assert [item.owner_id for item in found] == [ada.id]
        await identity.http.delete(f"/api/v1/organizations/{organization}/members/{membership}", headers=ada.headers)
        request = pb.BatchGetMembershipsRequest(user_ids=[ada.id, viewer.id])
        by_user = {item.user_id: item for item in (await stub.BatchGetMemberships(request)).memberships}
        assert by_user[ada.id].active
        assert "org:*" in by_user[ada.id].permissions
        assert not by_user[viewer.id].active
        assert by_user[viewer.id].version == 2
        listed, token = [], ""
        while True:
            page = await stub.ListMembershipSnapshot(pb.ListMembershipSnapshotRequest(page_size=1, page_token=token))
            listed += [item.user_id for item in page.memberships]
            token = page.next_page_token
            if not token:
                break
        assert sorted(listed) == sorted([ada.id, viewer.id])


class TestKeys:
    async def test_the_document_holds_two_keys_and_no_private_part(self, identity: Identity) -> None:
        document = (await identity.http.get("/.well-known/jwks.json")).json()
        assert len(document["keys"]) == 2
        for key in document["keys"]:
            assert key["alg"] == "ES256"
            assert "d" not in key

    async def test_tokens_outlive_rotations(self, identity: Identity) -> None:
        ada = await identity.person()
        async with rotating(identity) as tokens:
            for _ in range(3):
                await tokens.rotate_key()
                answer = await identity.http.get("/api/v1/auth/me", headers=ada.headers)
                assert answer.status_code == 200
                fresh = await identity.login(ada.email)
                assert (await identity.http.get("/api/v1/auth/me", headers=fresh.headers)).status_code == 200
        await identity.running.service.jobs[0].run()
        document = (await identity.http.get("/.well-known/jwks.json")).json()
        assert len(document["keys"]) == 5

    async def test_two_first_starts_make_one_pair_of_keys(self, identity: Identity, start: Start) -> None:
        other = await start(database_url=database_url(identity))
        first = (await identity.http.get("/.well-known/jwks.json")).json()
        second = (await other.http.get("/.well-known/jwks.json")).json()
        assert first == second

    async def test_another_envelope_key_cannot_open_the_keys(self, identity: Identity) -> None:
        import base64

        from identity_service.envelope.rules import SealBroken

        settings = Settings(
            env="test", database_url=database_url(identity), envelope_key=base64.b64encode(b"x" * 32).decode()
        )
        db = Database(settings)
        await db.start()
        try:
            with pytest.raises(SealBroken):
                await token_service(db, settings).ensure_keys()
        finally:
            await db.close()


class TestTwoInstances:
    async def test_logout_and_removal_reach_the_other_instance(self, identity: Identity, start: Start) -> None:
        other = await start(database_url=database_url(identity))
        ada = await identity.person()
        organization = await identity.organization(ada)
        bob, membership = await identity.member(ada, organization, "viewer")
        path = f"/api/v1/organizations/{organization}"
        assert (await other.http.get(path, headers=bob.headers)).status_code == 200
        await identity.http.delete(f"{path}/members/{membership}", headers=ada.headers)
        await status_soon(other, path, bob.headers, 404)
        await identity.http.post("/api/v1/auth/logout", headers=bob.headers)
        await status_soon(other, path, bob.headers, 401)


class TestEvents:
    async def test_what_happened_leaves_with_the_commit(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        await identity.http.patch(f"/api/v1/organizations/{organization}", json={"name": "New"}, headers=ada.headers)
        await identity.http.post("/api/v1/auth/logout", headers=ada.headers)
        db = identity.running.service.db
        async with db.reader() as tx:
            rows = await (await tx.connection()).fetch("SELECT subject, organization_id FROM outbox ORDER BY seq")
        assert [row["subject"] for row in rows] == [
            "identity.user.registered.v1",
            "identity.organization.created.v1",
            "identity.membership.changed.v1",
            "identity.organization.updated.v1",
            "identity.principal.revoked.v1",
        ]
        assert {row["organization_id"] for row in rows[1:4]} == {organization}

    async def test_a_refused_request_leaves_nothing(self, identity: Identity) -> None:
        ada, eve = await identity.person(), await identity.person()
        organization = await identity.organization(ada)
        db = identity.running.service.db

        async def count() -> int:
            async with db.reader() as tx:
                return int(await (await tx.connection()).fetchval("SELECT count(*) FROM outbox"))

        before = await count()
        await identity.http.patch(f"/api/v1/organizations/{organization}", json={"name": "x"}, headers=eve.headers)
        await identity.http.post(
            "/api/v1/organizations", json={"name": "x", "slug": "org-1"}, headers={"Authorization": "Bearer x"}
        )
        assert await count() == before


def token_service(db: Database, settings: Settings) -> TokenService:
    """As an operator's command makes one."""
    envelope = Envelope.from_base64(settings.envelope_key_text)
    return TokenService(db, settings, envelope, MailService(db, settings, envelope, None))


class rotating:
    """A token service of another process that shares database and envelope key."""

    def __init__(self, identity: Identity) -> None:
        self._settings = identity.running.service.settings
        self._db = Database(self._settings)

    async def __aenter__(self) -> TokenService:
        await self._db.start()
        tokens = token_service(self._db, self._settings)
        await tokens.ensure_keys()
        return tokens

    async def __aexit__(self, *_: object) -> None:
        await self._db.close()


async def refused_soon(authenticator, token: str) -> None:
    for _ in range(80):
        try:
            await authenticator.authenticate_credential(token)
        except AppError as error:
            refusal = error.kind
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the token was still accepted after 4 s")
    assert refusal is Kind.UNAUTHENTICATED


async def status_soon(identity: Identity, path: str, headers: dict[str, str], status: int) -> None:
    for _ in range(80):
        answer = await identity.http.get(path, headers=headers)
        if answer.status_code == status:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path} did not answer {status} within 4 s")


def test_the_service_is_built_without_a_connection() -> None:
    import base64

    service = build(
        Settings(
            env="test",
            database_url="postgresql://nobody:x@127.0.0.1:1/none",
            redis_url="redis://127.0.0.1:1/0",
            envelope_key=base64.b64encode(b"k" * 32).decode(),
        )
    )
    assert service.name == "identity"
