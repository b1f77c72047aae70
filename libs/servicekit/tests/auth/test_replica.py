"""The replicas in a real database: versions, snapshots, and how a change reaches another process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from omoios.identity.events.v1.events_pb2 import MembershipChanged, PrincipalRevoked
from servicekit import clock
from servicekit.auth.authenticator import Authenticator
from servicekit.auth.feed import AccessFeed
from servicekit.auth.memberships import MembershipDirectory
from servicekit.auth.replica import (
    RETENTION_S,
    AccessReplica,
    MembershipRow,
    RevocationRow,
    consumers,
    rebuild,
    write_memberships,
    write_revocations,
)
from servicekit.auth.revocations import Revocations
from servicekit.auth.setup import build_authenticator
from servicekit.auth.testing import Signing
from servicekit.db import Database
from servicekit.errors import AppError, Kind


def row(version: int, *, user: str = "alice", org: str = "org-1", role: str = "owner", active: bool = True) -> Any:
    return MembershipRow(user, org, role, ("project:*", "task:read"), active, version)


async def write(db: Database, *rows: MembershipRow) -> None:
    async with db.uow() as tx:
        await write_memberships(tx, rows)


async def test_only_a_newer_version_overwrites_a_membership(access_db: Database) -> None:
    source = AccessReplica(access_db)
    await write(access_db, row(2, role="admin"))
    await write(access_db, row(1, role="viewer"))
    (membership,) = await source.memberships_of("alice")
    assert (membership.role, membership.version) == ("admin", 2)
    assert membership.permissions == {"project:*", "task:read"}
    await write(access_db, row(3, active=False), row(3, user="bob", org="org-2"))
    assert await source.memberships_of("alice") == []
    await write(access_db, row(2))
    assert await source.memberships_of("alice") == []
    assert [item.organization_id for item in await source.memberships_of("bob")] == ["org-2"]


async def test_one_batch_may_hold_several_versions_of_a_row(access_db: Database) -> None:
    await write(access_db, row(1, role="viewer"), row(3, role="owner"), row(2, role="member"))
    (membership,) = await AccessReplica(access_db).memberships_of("alice")
    assert (membership.role, membership.version) == ("owner", 3)
    await write(access_db)


async def test_a_role_without_permissions_has_none(access_db: Database) -> None:
    await write(access_db, MembershipRow("alice", "org-1", "guest", (), True, 1))
    (membership,) = await AccessReplica(access_db).memberships_of("alice")
    assert membership.permissions == frozenset()


async def test_revocations_move_forward_and_old_ones_are_deleted(access_db: Database) -> None:
    source, now = AccessReplica(access_db), datetime.now(UTC)
    async with access_db.uow() as tx:
        await write_revocations(tx, [RevocationRow("user", "alice", now), RevocationRow("session", "s-1", now)])
        raw = await tx.connection()
        await raw.execute(
            "UPDATE replica_revocations SET updated_at = clock_timestamp() - make_interval(secs => $1)",
            float(RETENTION_S + 10),
        )
    async with access_db.uow() as tx:
        await write_revocations(tx, [RevocationRow("user", "alice", now - timedelta(hours=1))])
    connection = await access_db.connect("test")
    try:
        assert await connection.fetchval("SELECT count(*) FROM replica_revocations") == 0
        later = now + timedelta(seconds=5)
        async with access_db.uow() as tx:
            await write_revocations(tx, [RevocationRow("user", "alice", later)])
        rows = await source.revocations_since(connection, now - timedelta(minutes=1))
        assert [(item.principal_id, item.not_before) for item in rows] == [("alice", later)]
        assert await source.revocations_since(connection, now + timedelta(hours=1)) == []
    finally:
        await connection.close()


async def test_the_consumers_write_what_identity_said(access_db: Database) -> None:
    group = consumers()
    (source,) = group.sources.values()
    assert source.subjects == ["identity.membership.changed.v1", "identity.principal.revoked.v1"]
    changed = MembershipChanged(
        user_id="alice", organization_id="org-1", role="admin", permissions=["project:*"], active=True, version=7
    )
    revoked = PrincipalRevoked(principal_type="session", principal_id="s-1")
    revoked.not_before.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC))
    async with access_db.uow() as tx:
        await source.handlers["identity.membership.changed.v1"](tx, [SimpleNamespace(body=changed)])
        await source.handlers["identity.principal.revoked.v1"](tx, [SimpleNamespace(body=revoked)])
    (membership,) = await AccessReplica(access_db).memberships_of("alice")
    assert (membership.role, membership.version) == ("admin", 7)
    async with access_db.reader() as tx:
        raw = await tx.connection()
        stored = await raw.fetchrow("SELECT principal_type, principal_id, not_before FROM replica_revocations")
    assert tuple(stored) == ("session", "s-1", datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC))


async def test_a_rebuild_writes_every_page_and_newer_events_win(access_db: Database) -> None:
    await write(access_db, row(9, role="admin"))

    async def memberships() -> AsyncIterator[Sequence[MembershipRow]]:
        yield [row(5), row(1, user="bob")]
        yield [row(1, user="carol", active=False)]

    async def revocations() -> AsyncIterator[Sequence[RevocationRow]]:
        yield [RevocationRow("user", "bob", datetime.now(UTC))]

    assert await rebuild(access_db, memberships, revocations) == 4
    source = AccessReplica(access_db)
    assert [item.role for item in await source.memberships_of("alice")] == ["admin"]
    assert [item.role for item in await source.memberships_of("bob")] == ["owner"]
    assert await source.memberships_of("carol") == []


async def running(db: Database, signing: Signing, poll_interval_s: float) -> Authenticator:
    """The authenticator of another process on the same database."""
    source = AccessReplica(db)
    memberships, revocations = MembershipDirectory(source, ttl_s=3600), Revocations()
    feed = AccessFeed(db, source, revocations, memberships, poll_interval_s=poll_interval_s)
    made = Authenticator(signing.verifier(), memberships, revocations, companions=[feed], clock=time.time)
    await made.start()
    return made


async def until(condition: Any) -> None:
    """Polls for at most 4 s, four times the poll of the revocations."""
    for _ in range(400):
        if await condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("not within 4 s")


async def test_a_change_reaches_another_process_by_notification(access_db: Database) -> None:
    signing = Signing(access_db)
    token = await signing.user("alice", "org-1", "viewer", session_id="s-1")
    ended: list[tuple[str, str]] = []
    other = await running(access_db, signing, poll_interval_s=3600)
    try:
        other.on_revoked(lambda type_, id_: ended.append((type_, id_)))
        assert not (await other.authenticate_token(token)).can("project:write", "org-1")
        await signing.member("alice", "org-1", "owner")

        async def promoted() -> bool:
            return (await other.authenticate_token(token)).can("project:write", "org-1")

        await until(promoted)
        await signing.member("alice", "org-1", "owner", active=False)

        async def removed() -> bool:
            return (await other.authenticate_token(token)).memberships == {}

        await until(removed)
        await signing.revoke("session", "s-1")

        async def refused() -> bool:
            try:
                await other.authenticate_token(token)
            except AppError as error:
                assert error.kind is Kind.UNAUTHENTICATED  # noqa: PT017
                return True
            return False

        await until(refused)
        assert ended == [("session", "s-1")]
    finally:
        await other.close()


async def test_the_poll_finds_a_revocation_without_a_notification(access_db: Database) -> None:
    signing = Signing(access_db)
    token = signing.user_token("alice")
    other = await running(access_db, signing, poll_interval_s=0.05)
    try:
        await other.authenticate_token(token)
        async with access_db.uow() as tx:
            raw = await tx.connection()
            await raw.execute("INSERT INTO replica_revocations VALUES ('user', 'alice', now() + interval '2 s')")

        async def revoked() -> bool:
            return other.revocations.is_revoked("user", "alice", time.time())

        await until(revoked)
    finally:
        await other.close()


async def test_revocations_of_the_time_before_the_start_are_loaded(access_db: Database) -> None:
    signing = Signing(access_db)
    token = signing.user_token("alice", iat=int(time.time()) - 100)
    await signing.revoke("user", "alice")
    other = await running(access_db, signing, poll_interval_s=3600)
    try:
        with pytest.raises(AppError):
            await other.authenticate_token(token)
    finally:
        await other.close()


async def test_the_feed_comes_back_after_its_connection_was_cut(access_db: Database) -> None:
    signing = Signing(access_db)
    other = await running(access_db, signing, poll_interval_s=0.1)
    try:
        connection = await access_db.connect("operator")
        killed = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE '%access-feed%'"
        )
        await connection.close()
        assert killed == 1
        await signing.revoke("session", "s-1")

        async def revoked() -> bool:
            return other.revocations.session_revoked("s-1")

        await until(revoked)
    finally:
        await other.close()


async def test_the_authenticator_of_a_service_is_built_from_its_settings(access_db: Database) -> None:
    from servicekit.settings import ServiceSettings

    signing = Signing(access_db)
    settings = ServiceSettings(env="test", database_url=access_db.url)
    built = build_authenticator(settings, access_db, fetch_jwks=signing.fetch_jwks)
    await built.start()
    try:
        principal = await built.authenticate_token(await signing.user("alice", "org-1", "member"))
        assert principal.can("task:write", "org-1")
    finally:
        await built.close()


async def test_a_process_whose_clock_is_wrong_goes_by_the_database(
    access_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() - 300)
        other = await running(access_db, Signing(access_db), poll_interval_s=0.05)
        try:

            async def corrected() -> bool:
                return abs(clock.wall_s() - right()) < 2

            await until(corrected)
            assert clock.correction_s() == pytest.approx(300, abs=2)
            patch.undo()
            await until(corrected)
        finally:
            await other.close()
    now = time.time()
    clock.correct(now, now, now)
