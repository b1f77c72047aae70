"""The services of a state machine on a real database, without HTTP, events or jobs, on a loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from servicekit.auth import Membership, Principal, PrincipalType
from servicekit.clock import utc_now
from servicekit.db import Database
from servicekit.errors import AppError
from servicekit.ids import new_id
from workflow_service.clients import PlanLimits
from workflow_service.engine.service import EngineService
from workflow_service.phases.service import PhaseService
from workflow_service.projects.service import ProjectService
from workflow_service.queue.claims_service import ClaimService
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.limits_service import LimitService
from workflow_service.queue.merges_service import TaskMerges
from workflow_service.queue.service import QueueService
from workflow_service.settings import Settings
from workflow_service.tasks.service import TaskService
from workflow_service.tickets.service import TicketService

T = TypeVar("T")
PRIORITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")


class NoLimits:
    """Billing that limits nobody."""

    async def limits(self, organization_ids: Any) -> dict[str, PlanLimits]:
        return dict.fromkeys(organization_ids, PlanLimits(-1, 0, utc_now()))


class World:
    """The services under test, on a loop of their own."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.settings = Settings(env="test", database_url=url, database_pool_size=5)
        self.db = Database(self.settings)
        self.queue = QueueService()
        billing: Any = NoLimits()
        limits = LimitService(self.db, self.queue, billing, self.settings)
        self.claims = ClaimService(self.db, self.queue, limits, self.settings)
        self.merges = TaskMerges(self.queue)
        self.engine = EngineService(self.db, self.queue)
        self.by_hand = TaskService(self.db, self.queue, self.claims, limits, self.engine, self.settings)
        self.phases = PhaseService(self.db, self.engine)
        vcs: Any = None
        projects = ProjectService(self.db, vcs, followers=[self.queue])
        self.tickets = TicketService(self.db, projects, self.engine, self.settings)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def refusal(self, work: Coroutine[Any, Any, Any]) -> str | None:
        """The code with which something is refused, None where it is done."""
        try:
            self.do(work)
        except AppError as error:
            return error.code
        return None

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.db.uow() as tx:
            return list(await (await tx.connection()).fetch(statement, *arguments))

    async def project(self, organization: str) -> str:
        """A project without a limit on how many of its tasks run."""
        project = new_id()
        await self.fetch(
            "INSERT INTO projects (id, organization_id, name, max_concurrent_tasks, autonomous_execution_enabled,"
            " repository_state) VALUES ($1, $2, 'One', -1, true, 'ready')",
            project,
            organization,
        )
        return project

    async def tasks(self, organization: str, count: int = 4) -> list[str]:
        """A project with independent tasks, and no limit on how many run."""
        project, ticket = await self.project(organization), new_id()
        async with self.db.uow() as tx:
            connection = await tx.connection()
            await connection.execute(
                "INSERT INTO tickets (id, organization_id, project_id, title, phase_id, status, priority)"
                " VALUES ($1, $2, $3, 'Ticket', 'PHASE_IMPLEMENTATION', 'building', 'MEDIUM')",
                ticket,
                organization,
                project,
            )
            drafts = [
                TaskDraft(
                    id=new_id(),
                    organization_id=organization,
                    project_id=project,
                    ticket_id=ticket,
                    title=f"t{number}",
                    description=None,
                    task_type="implement_feature",
                    phase_id="PHASE_IMPLEMENTATION",
                    # Different where they are four, so that the order of claims is the same in each run of an example.
                    priority=PRIORITIES[number % len(PRIORITIES)],
                    max_retries=2,
                )
                for number in range(count)
            ]
            await self.queue.create(tx, drafts)
        return [draft.id for draft in drafts]

    def close(self) -> None:
        self.do(self.db.close())
        self.loop.close()


def member(organization: str) -> Principal:
    """A signed-in owner of the organization."""
    owner = Membership(organization, "owner", frozenset({"*:*"}))
    return Principal(PrincipalType.USER, new_id(), memberships={organization: owner})
