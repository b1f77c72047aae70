"""SQL of keys, sessions and revocations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from sqlalchemy import Double, Row, cast, delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from identity_service.tokens.tables import Revocation, Session, SigningKey
from servicekit.auth.feed import REVOCATIONS_CHANNEL
from servicekit.db import Tx

# One number for all instances: whoever makes or rotates keys holds this lock until the commit.
_KEY_LOCK = 7_103_001


async def lock_keys(tx: Tx) -> None:
    """Makes key changes of all instances wait for each other, until the end of the transaction."""
    await tx.session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY_LOCK})


async def list_keys(tx: Tx) -> Sequence[SigningKey]:
    """All keys that are published, oldest first."""
    return (await tx.session.execute(select(SigningKey).order_by(SigningKey.created_at, SigningKey.id))).scalars().all()


async def add_key(tx: Tx, **values: Any) -> None:
    """Inserts a key pair."""
    await tx.session.execute(insert(SigningKey).values(**values))


async def set_key_state(tx: Tx, key_id: str, state: str) -> None:
    """Moves a key to another state; `retiring` notes when."""
    retired = func.now() if state == "retiring" else None
    await tx.session.execute(update(SigningKey).where(SigningKey.id == key_id).values(state=state, retired_at=retired))


async def drop_retired_keys(tx: Tx, older_than: timedelta) -> int:
    """Deletes keys retired longer ago than `older_than`; returns how many."""
    statement = delete(SigningKey).where(
        SigningKey.state == "retiring", SigningKey.retired_at < func.now() - older_than
    )
    return len((await tx.session.execute(statement.returning(SigningKey.id))).all())


async def add_session(tx: Tx, **values: Any) -> None:
    """Inserts a session."""
    await tx.session.execute(insert(Session).values(**values))


async def find_session(tx: Tx, session_id: str) -> Row[str, int, float, bool, bool, str | None] | None:
    """`(user_id, generation, rotated_ago_s, ended, expired, user_agent)` by the database's clock; locks the row."""
    query = (
        select(
            Session.user_id,
            Session.generation,
            cast(func.extract("epoch", func.clock_timestamp() - Session.rotated_at), Double).label("rotated_ago_s"),
            Session.ended_at.is_not(None).label("ended"),
            (Session.expires_at <= func.clock_timestamp()).label("expired"),
            Session.user_agent,
        )
        .where(Session.id == session_id)
        .with_for_update()
    )
    return (await tx.session.execute(query)).one_or_none()


async def advance_session(tx: Tx, session_id: str, generation: int, address: str | None) -> None:
    """Sets the current generation of a session that the transaction has locked, and from where it was used."""
    values = {"generation": generation, "rotated_at": func.clock_timestamp(), "address": address}
    await tx.session.execute(update(Session).where(Session.id == session_id).values(**values))


async def list_live_sessions(tx: Tx, user_id: str, limit: int) -> Sequence[Session]:
    """The sessions of a user that stand, the one used last first."""
    query = (
        select(Session)
        .where(Session.user_id == user_id, Session.ended_at.is_(None), Session.expires_at > func.now())
        .order_by(Session.rotated_at.desc(), Session.id)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def end_sessions(
    tx: Tx, user_id: str, reason: str, *, only: str | None = None, keep: str | None = None
) -> list[str]:
    """Ends live sessions of a user (`only` that one, or all but `keep`); returns their ids."""
    statement = update(Session).where(Session.user_id == user_id, Session.ended_at.is_(None))
    if only is not None:
        statement = statement.where(Session.id == only)
    if keep is not None:
        statement = statement.where(Session.id != keep)
    statement = statement.values(ended_at=func.now(), end_reason=reason)
    return [row.id for row in await tx.session.execute(statement.returning(Session.id))]


async def purge_sessions(tx: Tx) -> int:
    """Deletes sessions that ran out more than a day ago; returns how many."""
    statement = delete(Session).where(Session.expires_at < func.now() - timedelta(days=1))
    return len((await tx.session.execute(statement.returning(Session.id))).all())


async def revoke(tx: Tx, principal_type: str, principal_id: str) -> datetime:
    """Declares every token of the principal issued up to now dead; returns that moment."""
    now = func.clock_timestamp()
    statement = upsert(Revocation).values(
        principal_type=principal_type, principal_id=principal_id, not_before=now, updated_at=now
    )
    statement = statement.on_conflict_do_update(
        index_elements=[Revocation.principal_type, Revocation.principal_id], set_={"not_before": now, "updated_at": now}
    )
    not_before: datetime = (await tx.session.execute(statement.returning(Revocation.not_before))).scalar_one()
    await tx.session.execute(text(f"SELECT pg_notify('{REVOCATIONS_CHANNEL}', '')"))
    return not_before


async def revoked_at(tx: Tx, principal_type: str, principal_id: str) -> datetime | None:
    """The moment before which the principal's tokens are dead; None where none was ended lately."""
    query = select(Revocation.not_before).where(
        Revocation.principal_type == principal_type, Revocation.principal_id == principal_id
    )
    return (await tx.session.execute(query)).scalar_one_or_none()


async def revocations_since(connection: asyncpg.Connection[Any], moment: datetime) -> Sequence[Mapping[str, Any]]:
    """`principal_type, principal_id, not_before, updated_at` of the rows changed since `moment`."""
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT principal_type, principal_id, not_before, updated_at FROM revocations WHERE updated_at >= $1", moment
    )
    return rows


async def list_revocations(tx: Tx, after: tuple[str, str], limit: int) -> Sequence[Revocation]:
    """A page of revocations after the given (type, id)."""
    query = (
        select(Revocation)
        .where(tuple_(Revocation.principal_type, Revocation.principal_id) > after)
        .order_by(Revocation.principal_type, Revocation.principal_id)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def purge_revocations(tx: Tx, older_than: timedelta) -> int:
    """Deletes revocations that no living token can meet; returns how many."""
    statement = delete(Revocation).where(Revocation.updated_at < func.now() - older_than)
    return len((await tx.session.execute(statement.returning(Revocation.principal_id))).all())
