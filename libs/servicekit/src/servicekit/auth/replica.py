"""The replicas of identity's memberships and revocations: read, fed by events, rebuilt from snapshots.

An event or snapshot row never overwrites a newer one: memberships compare versions, revocations only move forward.
Each effective change is announced by NOTIFY in the same commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg

from servicekit.auth.feed import MEMBERSHIPS_CHANNEL, REVOCATIONS_CHANNEL
from servicekit.auth.principal import Membership
from servicekit.auth.revocations import Revocation
from servicekit.auth.tokens import MAX_LIFETIME_S

if TYPE_CHECKING:
    from servicekit.db import Database, Tx
    from servicekit.events.consumers import Consumers
    from servicekit.events.envelope import Event

RETENTION_S = MAX_LIFETIME_S + 3600
"""Revocations older than the longest-lived token plus an hour are deleted when a new one arrives."""
PAGE_SIZE = 1000

_SELECT_MEMBERSHIPS = """
    SELECT organization_id, role, permissions, version FROM replica_memberships WHERE user_id = $1 AND active
"""
_SELECT_REVOCATIONS = """
    SELECT principal_type, principal_id, not_before, updated_at FROM replica_revocations WHERE updated_at >= $1
"""
_UPSERT_MEMBERSHIPS = f"""
    WITH written AS (
        INSERT INTO replica_memberships AS r (user_id, organization_id, role, permissions, active, version)
        SELECT user_id, organization_id, role, string_to_array(permissions, ' '), active, version
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::bigint[])
            AS incoming (user_id, organization_id, role, permissions, active, version)
        ON CONFLICT (user_id, organization_id) DO UPDATE
        SET role = excluded.role, permissions = excluded.permissions, active = excluded.active,
            version = excluded.version
        WHERE r.version < excluded.version
        RETURNING r.user_id
    )
    SELECT pg_notify('{MEMBERSHIPS_CHANNEL}', user_id) FROM (SELECT DISTINCT user_id FROM written) AS changed
"""
_UPSERT_REVOCATIONS = f"""
    WITH written AS (
        INSERT INTO replica_revocations AS r (principal_type, principal_id, not_before)
        SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
        ON CONFLICT (principal_type, principal_id) DO UPDATE
        SET not_before = excluded.not_before, updated_at = clock_timestamp()
        WHERE r.not_before < excluded.not_before
        RETURNING 1
    )
    SELECT pg_notify('{REVOCATIONS_CHANNEL}', '') FROM (SELECT 1 FROM written LIMIT 1) AS changed
"""
_DELETE_OLD_REVOCATIONS = """
    DELETE FROM replica_revocations WHERE updated_at < clock_timestamp() - make_interval(secs => $1)
"""


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """One membership as identity states it."""

    user_id: str
    organization_id: str
    role: str
    permissions: Sequence[str]
    active: bool
    version: int


@dataclass(frozen=True, slots=True)
class RevocationRow:
    """One revocation as identity states it."""

    principal_type: str
    principal_id: str
    not_before: datetime


class AccessReplica:
    """Reads both replica tables; the `MembershipSource` and `RevocationSource` of every service but identity."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def memberships_of(self, user_id: str) -> Sequence[Membership]:
        """The user's active memberships. Raises UNAVAILABLE when the database is away."""
        async with self._db.reader() as tx:
            connection = await tx.connection()
            rows = await connection.fetch(_SELECT_MEMBERSHIPS, user_id)
        return [Membership(row[0], row[1], frozenset(row[2]), row[3]) for row in rows]

    async def revocations_since(self, connection: asyncpg.Connection[Any], moment: datetime) -> Sequence[Revocation]:
        """The rows with `updated_at >= moment`."""
        return [Revocation(*row) for row in await connection.fetch(_SELECT_REVOCATIONS, moment)]


async def write_memberships(tx: Tx, rows: Sequence[MembershipRow]) -> None:
    """Inserts or updates rows, each only when its version is newer than the stored one."""
    newest: dict[tuple[str, str], MembershipRow] = {}
    for row in rows:
        known = newest.get((row.user_id, row.organization_id))
        if known is None or known.version < row.version:
            newest[(row.user_id, row.organization_id)] = row
    # Sorted, so that two writers of overlapping sets lock rows in one order.
    ordered = [newest[key] for key in sorted(newest)]
    connection = await tx.connection()
    await connection.execute(
        _UPSERT_MEMBERSHIPS,
        [row.user_id for row in ordered],
        [row.organization_id for row in ordered],
        [row.role for row in ordered],
        [" ".join(row.permissions) for row in ordered],
        [row.active for row in ordered],
        [row.version for row in ordered],
    )


async def write_revocations(tx: Tx, rows: Sequence[RevocationRow]) -> None:
    """Inserts revocations or moves them forward, and deletes those that concern no living token."""
    furthest: dict[tuple[str, str], datetime] = {}
    for row in rows:
        key = (row.principal_type, row.principal_id)
        furthest[key] = max(row.not_before, furthest.get(key, row.not_before))
    ordered = sorted(furthest)
    connection = await tx.connection()
    await connection.execute(
        _UPSERT_REVOCATIONS,
        [key[0] for key in ordered],
        [key[1] for key in ordered],
        [furthest[key] for key in ordered],
    )
    await connection.execute(_DELETE_OLD_REVOCATIONS, float(RETENTION_S))


def consumers() -> Consumers:
    """The kit's consumers of identity's events, part of every service but identity."""
    from omoios.identity.events.v1 import events_pb2
    from servicekit.events.consumers import Consumers

    group = Consumers("access")

    @group.on_batch(events_pb2.MembershipChanged)
    async def memberships_changed(tx: Tx, events: Sequence[Event[Any]]) -> None:
        await write_memberships(tx, [membership_row(event.body) for event in events])

    @group.on_batch(events_pb2.PrincipalRevoked)
    async def principals_revoked(tx: Tx, events: Sequence[Event[Any]]) -> None:
        await write_revocations(tx, [revocation_row(event.body) for event in events])

    return group


async def rebuild(
    db: Database,
    memberships: Callable[[], AsyncIterator[Sequence[MembershipRow]]],
    revocations: Callable[[], AsyncIterator[Sequence[RevocationRow]]],
) -> int:
    """Writes identity's snapshots into the replicas, page by page; returns the number of rows read.

    Pages are fetched outside transactions. Events that arrive meanwhile win by version.
    """
    count = 0
    async for page in memberships():
        async with db.uow() as tx:
            await write_memberships(tx, page)
        count += len(page)
    async for revoked in revocations():
        async with db.uow() as tx:
            await write_revocations(tx, revoked)
        count += len(revoked)
    return count


def membership_row(message: Any) -> MembershipRow:
    """From `identity.v1.Membership` or `identity.events.v1.MembershipChanged`, which have the same fields."""
    return MembershipRow(
        message.user_id,
        message.organization_id,
        message.role,
        tuple(message.permissions),
        message.active,
        message.version,
    )


def revocation_row(message: Any) -> RevocationRow:
    """From `identity.v1.Revocation` or `identity.events.v1.PrincipalRevoked`."""
    return RevocationRow(message.principal_type, message.principal_id, message.not_before.ToDatetime(tzinfo=UTC))
