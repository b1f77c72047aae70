"""SQL of the audit trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from identity_service.audit.rules import Head
from identity_service.audit.tables import AuditEntry, AuditHead
from servicekit.db import Tx

# One number for all instances: two sealers wait for each other, so that no position is given twice.
_SEAL_LOCK = 7_103_002


async def add(tx: Tx, **values: Any) -> None:
    """Inserts an entry."""
    await tx.session.execute(insert(AuditEntry).values(**values))


async def lock_sealing(tx: Tx) -> None:
    """Waits until no other transaction seals, until the end of this one."""
    await tx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SEAL_LOCK})


async def list_unsealed(tx: Tx, limit: int) -> Sequence[AuditEntry]:
    """Committed entries that belong to no chain yet, oldest first."""
    query = select(AuditEntry).where(AuditEntry.position.is_(None)).order_by(AuditEntry.id).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def heads_of(tx: Tx, chains: Sequence[str]) -> Mapping[str, AuditHead]:
    """Chain → its head, where it has one."""
    rows = (await tx.session.execute(select(AuditHead).where(AuditHead.chain.in_(chains)))).scalars().all()
    return {row.chain: row for row in rows}


async def set_positions(tx: Tx, ids: Sequence[str], sealed: Sequence[Head]) -> None:
    """Writes position and digest of the entries, in the order of `ids`."""
    connection = await tx.connection()
    await connection.execute(
        "UPDATE audit_log SET position = sealed.position, digest = sealed.digest"
        " FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS sealed (id, position, digest)"
        " WHERE audit_log.id = sealed.id",
        list(ids),
        [head.position for head in sealed],
        [head.digest for head in sealed],
    )


async def set_head(tx: Tx, chain: str, head: Head, sealed_key: bytes) -> None:
    """Moves a chain's head, or makes it."""
    statement = upsert(AuditHead).values(chain=chain, position=head.position, digest=head.digest, sealed_key=sealed_key)
    statement = statement.on_conflict_do_update(
        index_elements=[AuditHead.chain],
        set_={"position": head.position, "digest": head.digest, "updated_at": func.now()},
    )
    await tx.session.execute(statement)


async def page_chains(tx: Tx, after: str | None, limit: int) -> Sequence[str]:
    """A page of the names of all chains, from heads and entries alike: a deleted head hides no entries."""
    heads = select(AuditHead.chain.label("chain"))
    entries = select(func.coalesce(AuditEntry.organization_id, "").label("chain")).where(
        AuditEntry.position.is_not(None)
    )
    names = heads.union(entries).subquery()
    query = select(names.c.chain).order_by(names.c.chain).limit(limit)
    if after is not None:
        query = query.where(names.c.chain > after)
    return (await tx.session.execute(query)).scalars().all()


async def page_chain(tx: Tx, chain: str, after: int, limit: int) -> Sequence[AuditEntry]:
    """Sealed entries of a chain behind a position, by position."""
    query = (
        select(AuditEntry)
        .where(
            func.coalesce(AuditEntry.organization_id, "") == chain,
            AuditEntry.position.is_not(None),
            AuditEntry.position > after,
        )
        .order_by(AuditEntry.position)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def oldest_unsealed(tx: Tx, older_than: timedelta) -> AuditEntry | None:
    """The first entry that should long have been sealed; None when there is none."""
    query = (
        select(AuditEntry)
        .where(AuditEntry.position.is_(None), AuditEntry.created_at < func.now() - older_than)
        .order_by(AuditEntry.id)
        .limit(1)
    )
    return (await tx.session.execute(query)).scalar_one_or_none()


async def list_entries(
    tx: Tx,
    *,
    limit: int,
    before: str | None = None,
    organization_id: str | None = None,
    subject_id: str | None = None,
    action: str | None = None,
    actor_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Sequence[AuditEntry]:
    """Entries of an organization, or without one those of an account, newest first, with ids before `before`."""
    query = select(AuditEntry).where(
        AuditEntry.organization_id == organization_id
        if organization_id is not None
        else AuditEntry.organization_id.is_(None)
    )
    wanted = {
        AuditEntry.subject_id: subject_id,
        AuditEntry.action: action,
        AuditEntry.actor_id: actor_id,
    }
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    if since is not None:
        query = query.where(AuditEntry.created_at >= since)
    if until is not None:
        query = query.where(AuditEntry.created_at < until)
    return (await tx.session.execute(query.order_by(AuditEntry.id.desc()).limit(limit))).scalars().all()
