"""SQL of the sandboxes room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from agents_service.agents.rules import TERMINATED
from agents_service.agents.tables import Agent
from agents_service.sandboxes.rules import ENDED, MESSAGES_PER_READ, RUNNING
from agents_service.sandboxes.tables import Revocation, Sandbox, SandboxMessage
from servicekit.db import Tx


async def add(tx: Tx, **values: Any) -> Sandbox:
    """Inserts a running sandbox."""
    return (await tx.session.execute(insert(Sandbox).values(**values, state=RUNNING).returning(Sandbox))).scalar_one()


async def get(tx: Tx, sandbox_id: str) -> Sandbox | None:
    """One sandbox."""
    return (await tx.session.execute(select(Sandbox).where(Sandbox.id == sandbox_id))).scalar_one_or_none()


async def by_ids(tx: Tx, ids: Sequence[str]) -> Sequence[Sandbox]:
    """The sandboxes that exist among `ids`."""
    return (await tx.session.execute(select(Sandbox).where(Sandbox.id.in_(ids)))).scalars().all()


async def running(tx: Tx, organizations: Sequence[str], limit: int) -> Sequence[Sandbox]:
    """Running sandboxes of the organizations, newest first."""
    query = (
        select(Sandbox)
        .where(Sandbox.organization_id.in_(organizations), Sandbox.state == RUNNING)
        .order_by(Sandbox.started_at.desc(), Sandbox.id.desc())
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def silent(tx: Tx, silent_s: float, limit: int) -> Sequence[Sandbox]:
    """Running sandboxes without a heartbeat for `silent_s`, longest silent first."""
    query = (
        select(Sandbox)
        .where(
            Sandbox.state == RUNNING,
            Sandbox.last_heartbeat_at < func.clock_timestamp() - timedelta(seconds=silent_s),
        )
        .order_by(Sandbox.last_heartbeat_at)
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def has_running(tx: Tx, agent_id: str) -> bool:
    """Whether an agent has a running sandbox."""
    query = select(Sandbox.id).where(Sandbox.agent_id == agent_id, Sandbox.state == RUNNING).limit(1)
    return (await tx.session.execute(query)).scalar_one_or_none() is not None


async def running_of(tx: Tx, agent_id: str) -> Sequence[str]:
    """Ids of the running sandboxes of an agent."""
    query = select(Sandbox.id).where(Sandbox.agent_id == agent_id, Sandbox.state == RUNNING).order_by(Sandbox.id)
    return (await tx.session.execute(query)).scalars().all()


async def count_running(tx: Tx, agent_id: str) -> int:
    """How many sandboxes of an agent run."""
    query = select(func.count()).where(Sandbox.agent_id == agent_id, Sandbox.state == RUNNING)
    return (await tx.session.execute(query)).scalar_one()


async def terminated_at_work(tx: Tx, limit: int) -> Sequence[str]:
    """Ids of agents that are out of service and have running sandboxes."""
    query = (
        select(Sandbox.agent_id)
        .join(Agent, Agent.id == Sandbox.agent_id)
        .where(Sandbox.state == RUNNING, Agent.status == TERMINATED)
        .distinct()
        .limit(limit)
    )
    return (await tx.session.execute(query)).scalars().all()


async def end(tx: Tx, sandbox_id: str, reason: str, completion: dict[str, Any] | None) -> Sandbox | None:
    """Ends a running sandbox; None when another was first."""
    statement = (
        update(Sandbox)
        .where(Sandbox.id == sandbox_id, Sandbox.state == RUNNING)
        .values(
            state=ENDED,
            end_reason=reason,
            ended_at=func.clock_timestamp(),
            completion=completion,
            version=Sandbox.version + 1,
        )
        .returning(Sandbox)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one_or_none()


async def beat(tx: Tx, sandbox_id: str) -> None:
    """Notes that a sandbox is there."""
    await tx.session.execute(
        update(Sandbox).where(Sandbox.id == sandbox_id).values(last_heartbeat_at=func.clock_timestamp())
    )


async def state_counts(tx: Tx, organizations: Sequence[str]) -> Sequence[tuple[str, str, int]]:
    """`(organization, state, count)` of sandboxes that run."""
    query = (
        select(Sandbox.organization_id, Sandbox.state, func.count())
        .where(Sandbox.state == RUNNING)
        .group_by(Sandbox.organization_id, Sandbox.state)
    )
    if organizations:
        query = query.where(Sandbox.organization_id.in_(organizations))
    return [(row[0], row[1], row[2]) for row in await tx.session.execute(query)]


async def add_message(tx: Tx, **values: Any) -> bool:
    """Queues a message; False when its id is known."""
    statement = upsert(SandboxMessage).values(**values).on_conflict_do_nothing().returning(SandboxMessage.id)
    return (await tx.session.execute(statement)).scalar_one_or_none() is not None


async def count_waiting(tx: Tx, sandbox_id: str) -> int:
    """Messages that the sandbox has not read."""
    query = (
        select(func.count())
        .select_from(SandboxMessage)
        .where(SandboxMessage.sandbox_id == sandbox_id, SandboxMessage.delivered_at.is_(None))
    )
    return (await tx.session.execute(query)).scalar_one()


async def waiting(tx: Tx, sandbox_id: str) -> Sequence[SandboxMessage]:
    """Messages that the sandbox has not read, in order, without taking them."""
    query = (
        select(SandboxMessage)
        .where(SandboxMessage.sandbox_id == sandbox_id, SandboxMessage.delivered_at.is_(None))
        .order_by(SandboxMessage.position)
        .limit(MESSAGES_PER_READ)
    )
    return (await tx.session.execute(query)).scalars().all()


async def acknowledge(tx: Tx, sandbox_id: str, message_id: str) -> None:
    """Notes this message of the sandbox and those before it as delivered; an unknown id changes nothing."""
    last = (
        select(SandboxMessage.position)
        .where(SandboxMessage.id == message_id, SandboxMessage.sandbox_id == sandbox_id)
        .scalar_subquery()
    )
    await tx.session.execute(
        update(SandboxMessage)
        .where(
            SandboxMessage.sandbox_id == sandbox_id,
            SandboxMessage.delivered_at.is_(None),
            SandboxMessage.position <= last,
        )
        .values(delivered_at=func.clock_timestamp())
    )


async def take(tx: Tx, sandbox_id: str) -> Sequence[SandboxMessage]:
    """Takes the waiting messages, in order; two readers never get the same one."""
    chosen = (
        select(SandboxMessage.id)
        .where(SandboxMessage.sandbox_id == sandbox_id, SandboxMessage.delivered_at.is_(None))
        .order_by(SandboxMessage.position)
        .limit(MESSAGES_PER_READ)
        .with_for_update()
    )
    statement = (
        update(SandboxMessage)
        .where(SandboxMessage.id.in_(chosen), SandboxMessage.delivered_at.is_(None))
        .values(delivered_at=func.clock_timestamp())
        .returning(SandboxMessage)
    )
    return sorted((await tx.session.execute(statement)).scalars().all(), key=lambda row: row.position)


async def want_revocation(
    tx: Tx, principal_id: str, organization_id: str, reason: str, delay_s: int, principal_type: str = "sandbox"
) -> None:
    """Notes that the tokens of a sandbox or agent are to end after `delay_s`."""
    due_at = func.clock_timestamp() + timedelta(seconds=delay_s)
    statement = upsert(Revocation).values(
        principal_id=principal_id,
        principal_type=principal_type,
        organization_id=organization_id,
        reason=reason,
        due_at=due_at,
    )
    await tx.session.execute(
        statement.on_conflict_do_update(index_elements=[Revocation.principal_id], set_={"due_at": due_at})
    )


async def due_revocations(tx: Tx, limit: int, retry_after_s: int) -> Sequence[Revocation]:
    """Takes intents that are due and puts their next try off; a crash leaves them for later."""
    chosen = (
        select(Revocation.principal_id)
        .where(Revocation.due_at <= func.clock_timestamp())
        .order_by(Revocation.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Revocation)
        .where(Revocation.principal_id.in_(chosen))
        .values(due_at=func.clock_timestamp() + timedelta(seconds=retry_after_s), attempts=Revocation.attempts + 1)
        .returning(Revocation)
    )
    return (await tx.session.execute(statement)).scalars().all()


async def revoked(tx: Tx, principal_ids: Sequence[str]) -> None:
    """Forgets executed intents."""
    await tx.session.execute(delete(Revocation).where(Revocation.principal_id.in_(principal_ids)))


async def set_completion(tx: Tx, sandbox_id: str, completion: dict[str, Any]) -> None:
    """Keeps the answer of a task-complete whose sandbox had been ended by the event of that completion."""
    await tx.session.execute(
        update(Sandbox).where(Sandbox.id == sandbox_id, Sandbox.completion.is_(None)).values(completion=completion)
    )
