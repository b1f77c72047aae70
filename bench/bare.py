"""The bare route: FastAPI with the statements of our operations as SQLAlchemy Core, and nothing else.

No authentication, no checks, no relay, no consumers, no log lines; the same database, a process of its own. What an
operation costs beyond it is the price of everything else that the product promises. `/tickets` writes the same rows as
our operation (ticket, first task, three facts), `/rows` a ticket alone.

`python -m bench.bare` reads `{"port", "databases": {name: url}}` (JSON) from standard input and serves until it is
terminated.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import ARRAY, Integer, Select, bindparam, func, insert, literal, not_, select, true, union_all
from sqlalchemy import Text as SqlText
from sqlalchemy import column as sql_column
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from identity_service.auth.schemas import UserOut
from identity_service.users.tables import User
from servicekit.db.tables import OutboxRow
from workflow_service.board.schemas import BoardTicket
from workflow_service.engine.tables import Ticket, TicketCount, TicketCountDelta
from workflow_service.queue.tables import Task
from workflow_service.tickets.schemas import TicketList, TicketOut

PHASES = (
    "PHASE_BACKLOG",
    "PHASE_REQUIREMENTS",
    "PHASE_DESIGN",
    "PHASE_IMPLEMENTATION",
    "PHASE_TESTING",
    "PHASE_DEPLOYMENT",
    "PHASE_DONE",
)


class NewTicket(BaseModel):
    """The body of `POST /tickets`."""

    organization_id: str
    project_id: str
    title: str
    description: str


class Cards(BaseModel):
    """The answer of `GET /board`."""

    counts: dict[str, int]
    tickets: list[BoardTicket]


def columns_of(table: Any, model: type[BaseModel]) -> list[Any]:
    """The columns that a response model names."""
    return [table.c[name] for name in model.model_fields]


def cards_of(project_id: str) -> Select[Any]:
    """The newest 100 tickets of each phase."""
    ticket = Ticket.__table__
    phases = literal(list(PHASES), ARRAY(SqlText))
    lanes = func.unnest(phases).table_valued(sql_column("phase_id", SqlText)).render_derived(name="lanes")
    newest = (
        select(ticket.c.id)
        .where(ticket.c.project_id == project_id, ticket.c.phase_id == lanes.c.phase_id, not_(ticket.c.hidden))
        .order_by(ticket.c.created_at.desc(), ticket.c.id.desc())
        .limit(bindparam("per_phase", 100, Integer, literal_execute=True))
        .lateral("newest")
    )
    chosen = select(newest.c.id).select_from(lanes).join(newest, true()).subquery()
    return (
        select(*columns_of(ticket, BoardTicket))
        .join(chosen, chosen.c.id == ticket.c.id)
        .order_by(ticket.c.created_at.desc(), ticket.c.id.desc())
    )


def counts_of(where: str, value: str, *by: str) -> Select[Any]:
    """Numbers of tickets from both tables of counts, in one statement."""
    parts = []
    for table in (TicketCount.__table__, TicketCountDelta.__table__):
        parts.append(select(*(table.c[name] for name in by), table.c.tickets).where(table.c[where] == value))
    both = union_all(*parts).subquery()
    grouped = [both.c[name] for name in by]
    return select(*grouped, func.coalesce(func.sum(both.c.tickets), 0)).group_by(*grouped)


def create(databases: Mapping[str, str]) -> FastAPI:
    """The application."""
    app = FastAPI()
    engines = {
        name: create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=10)
        for name, url in databases.items()
    }
    reading = {name: engine.execution_options(isolation_level="AUTOCOMMIT") for name, engine in engines.items()}
    user, ticket = User.__table__, Ticket.__table__

    async def rows_of(name: str, *statements: Select[Any]) -> list[Sequence[Any]]:
        async with reading[name].connect() as connection:
            return [(await connection.execute(statement)).mappings().all() for statement in statements]

    @app.get("/me", response_model=UserOut)
    async def me(id: str) -> Any:
        (found,) = await rows_of("identity", select(*columns_of(user, UserOut)).where(user.c.id == id))
        return dict(found[0])

    @app.get("/tickets", response_model=TicketList)
    async def tickets(organization_id: str, limit: int) -> Any:
        page = (
            select(*columns_of(ticket, TicketOut))
            .where(ticket.c.organization_id == organization_id, not_(ticket.c.hidden))
            .order_by(ticket.c.created_at.desc(), ticket.c.id.desc())
            .limit(bindparam("most", limit, Integer, literal_execute=True))
        )
        found, total = await rows_of("workflow", page, counts_of("organization_id", organization_id))
        return {"tickets": [dict(row) for row in found], "total": total[0]["coalesce_1"]}

    @app.get("/board", response_model=Cards)
    async def board(project_id: str) -> Any:
        found, counted = await rows_of(
            "workflow", cards_of(project_id), counts_of("project_id", project_id, "phase_id")
        )
        return {
            "counts": {row["phase_id"]: row["coalesce_1"] for row in counted},
            "tickets": [dict(row) for row in found],
        }

    @app.post("/rows", response_model=TicketOut)
    async def create_row(body: NewTicket) -> Any:
        async with engines["workflow"].begin() as connection:
            return await insert_ticket(connection, body)

    @app.post("/tickets", response_model=TicketOut)
    async def create_ticket(body: NewTicket) -> Any:
        async with engines["workflow"].begin() as connection:
            made = await insert_ticket(connection, body)
            task = await insert_task(connection, made, body)
            await connection.execute(insert(OutboxRow), [fact(made["id"]), fact(task), fact(body.organization_id)])
            return made

    return app


async def insert_ticket(connection: AsyncConnection, body: NewTicket) -> dict[str, Any]:
    """The row of a ticket."""
    given = {
        **body.model_dump(),
        "id": str(uuid.uuid4()),
        "phase_id": "PHASE_REQUIREMENTS",
        "status": "analyzing",
        "priority": "MEDIUM",
    }
    statement = insert(Ticket).values(given).returning(*columns_of(Ticket.__table__, TicketOut))
    return dict((await connection.execute(statement)).mappings().one())


async def insert_task(connection: AsyncConnection, ticket: Mapping[str, Any], body: NewTicket) -> str:
    """The row of its first task, held, so that nobody claims it."""
    given = {
        "id": str(uuid.uuid4()),
        "organization_id": body.organization_id,
        "project_id": body.project_id,
        "ticket_id": ticket["id"],
        "phase_id": ticket["phase_id"],
        "task_type": "analyze_requirements",
        "title": ticket["title"],
        "description": ticket["description"],
        "priority": ticket["priority"],
        "holds": 1,
    }
    return str((await connection.execute(insert(Task).values(given).returning(Task.id))).scalar_one())


def fact(aggregate_id: str) -> dict[str, Any]:
    """A row of the outbox that the relay has nothing to do with."""
    now = datetime.now(UTC)
    return {
        "event_id": str(uuid.uuid4()),
        "subject": "bench.row.made.v1",
        "aggregate_type": "row",
        "aggregate_id": aggregate_id,
        "version": 1,
        "occurred_at": now,
        "published_at": now,
        "payload": b"x" * 200,
    }


if __name__ == "__main__":
    plan = json.loads(sys.stdin.read())
    uvicorn.run(create(plan["databases"]), port=plan["port"], access_log=False, log_level="warning")
