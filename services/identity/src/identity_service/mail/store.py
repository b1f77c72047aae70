"""SQL of the mails."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from identity_service.mail import rules
from identity_service.mail.tables import Mail
from servicekit.db import Tx


async def add(tx: Tx, **values: Any) -> bool:
    """Inserts a mail; False when its `dedupe_key` is known."""
    statement = insert(Mail).values(**values).on_conflict_do_nothing(index_elements=[Mail.dedupe_key])
    return (await tx.session.execute(statement.returning(Mail.id))).scalar_one_or_none() is not None


async def recover(tx: Tx) -> tuple[int, int]:
    """Puts aside what a sender that died left behind: (queued again, uncertain)."""
    again = update(Mail).where(Mail.state == "sending").values(state="queued", updated_at=func.now())
    lost = (
        update(Mail)
        .where(Mail.state == "transmitting")
        .values(
            state="uncertain",
            sealed_context=None,
            updated_at=func.now(),
            last_error="the sender ended while the server was taking the mail",
        )
    )
    queued = len((await tx.session.execute(again.returning(Mail.id))).all())
    uncertain = len((await tx.session.execute(lost.returning(Mail.id))).all())
    return queued, uncertain


async def expire(tx: Tx) -> int:
    """Gives up the mails whose links are worth nothing any more; returns how many."""
    statement = (
        update(Mail)
        .where(Mail.state == "queued", Mail.expires_at <= func.now())
        .values(state="expired", sealed_context=None, updated_at=func.now())
    )
    return len((await tx.session.execute(statement.returning(Mail.id))).all())


async def claim(tx: Tx) -> Mail | None:
    """The mail that is due first, now `sending`, its attempt counted; None when none is due."""
    due = (
        select(Mail.id)
        .where(Mail.state == "queued", Mail.due_at <= func.now())
        .order_by(Mail.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(Mail)
        .where(Mail.id == due)
        .values(state="sending", attempts=Mail.attempts + 1, updated_at=func.now())
        .returning(Mail)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def move(tx: Tx, mail_id: str, attempt: int, states: Collection[str], state: str, **values: Any) -> bool:
    """Moves one attempt from one of `states`; False when another sender has taken the mail over since."""
    statement = (
        update(Mail)
        .where(Mail.id == mail_id, Mail.attempts == attempt, Mail.state.in_(states))
        .values(state=state, updated_at=func.now(), **values)
    )
    return (await tx.session.execute(statement.returning(Mail.id))).scalar_one_or_none() is not None


async def retry_later(tx: Tx, mail_id: str, attempt: int, states: Collection[str], pause_s: float, error: str) -> None:
    """Queues an attempt that did not get through once more, after a pause."""
    due_at = func.now() + timedelta(seconds=pause_s)
    await move(tx, mail_id, attempt, states, "queued", due_at=due_at, last_error=error)


async def counts(tx: Tx) -> Mapping[str, int]:
    """State → how many mails are in it."""
    rows = await tx.session.execute(select(Mail.state, func.count()).group_by(Mail.state))
    return {row[0]: row[1] for row in rows}


async def list_in(tx: Tx, states: Collection[str], limit: int) -> Sequence[Mail]:
    """The mails in these states, the latest first."""
    query = select(Mail).where(Mail.state.in_(states)).order_by(Mail.updated_at.desc(), Mail.id.desc()).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def forget(tx: Tx, recipient: str) -> None:
    """Deletes the mails to an address but those that are being sent at this moment."""
    states = ("queued", *rules.FINAL_STATES)
    await tx.session.execute(delete(Mail).where(Mail.recipient == recipient, Mail.state.in_(states)))


async def purge(tx: Tx, older_than: timedelta) -> int:
    """Deletes mails that were done with before, and those whose account is gone; returns how many."""
    old = or_(Mail.updated_at < func.now() - older_than, Mail.template == "account_deleted")
    statement = delete(Mail).where(Mail.state.in_(rules.FINAL_STATES), old)
    return len((await tx.session.execute(statement.returning(Mail.id))).all())
