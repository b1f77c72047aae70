"""Use cases of specs: make, read, change, archive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import invalid
from servicekit.ids import new_id
from workflow_service import events
from workflow_service.coordination.service import CoordinationService
from workflow_service.engine.service import EngineService
from workflow_service.errors import PROJECT_ARCHIVED, SPEC_NOT_FOUND
from workflow_service.plans import rules as plans
from workflow_service.plans.model import Plan
from workflow_service.projects.service import ProjectService
from workflow_service.projects.tables import Project
from workflow_service.queue.draft_rules import TaskDraft
from workflow_service.queue.rules import Hold
from workflow_service.queue.service import QueueService
from workflow_service.specs import rules, store
from workflow_service.specs.rules import SpecState
from workflow_service.specs.schemas import (
    CriterionOut,
    DesignOut,
    ExecutionOut,
    Message,
    RequirementOut,
    SpecCreate,
    SpecList,
    SpecOut,
    SpecPatch,
    SpecTaskOut,
    VersionList,
    VersionOut,
)
from workflow_service.specs.tables import Criterion, Requirement, Spec, SpecTask

# A single spec is answered whole; in a list each shows its first parts.
ALL_PARTS = 10_000
PARTS_IN_LIST = 200


class SpecService:
    """Specs and what a plan makes of them: requirements, tickets and tasks, all in one transaction."""

    def __init__(
        self,
        db: Database,
        projects: ProjectService,
        engine: EngineService,
        queue: QueueService,
        coordination: CoordinationService,
    ) -> None:
        self._db = db
        self._projects = projects
        self._engine = engine
        self._queue = queue
        self._coordination = coordination

    async def create(self, principal: Principal, body: SpecCreate) -> SpecOut:
        """A new spec, with its plan if there is one. Raises 404 for the project, 422 naming the plan's lines."""
        if body.engine not in (None, "plan"):
            raise invalid("engine", "must be 'plan'", body.engine)
        if body.engine == "plan" and body.plan is None:
            raise invalid("plan", "the engine 'plan' needs a plan")
        # A large plan takes half a second of CPU, during which others must be served.
        plan = await asyncio.to_thread(plans.parse, body.plan) if body.plan is not None else None
        title = body.title or (plan.title if plan else None)
        if title is None:
            raise invalid("title", "must not be empty")
        async with self._db.uow() as tx:
            project = await self._projects.require(tx, principal, "document:write", body.project_id, lock=True)
            if project.status == "archived":
                raise PROJECT_ARCHIVED()
            spec = await self._add(tx, principal, project, title, body, plan)
            requirements = tasks = 0
            if plan is not None:
                requirements, tasks = await self._apply(tx, spec, plan)
            await store.add_version(tx, spec, "created", "Spec created", None, principal.subject)
            events.spec_created(tx, spec, requirements, tasks)
            return tx.result((await self.out(tx, [spec], ALL_PARTS))[0])

    async def _add(
        self, tx: Tx, principal: Principal, project: Project, title: str, body: SpecCreate, plan: Plan | None
    ) -> Spec:
        spec_id = new_id("spec-")
        prefix = rules.BRANCH_PREFIX + rules.slug(title)
        taken = await store.branches(tx, project.id, prefix)
        approved = plan is not None and not rules.requires_approval(project.settings)
        now = await store.now(tx)
        description = body.description if body.description is not None else (plan.description if plan else None)
        spec = Spec(
            id=spec_id,
            organization_id=project.organization_id,
            project_id=project.id,
            user_id=principal.member_id,
            title=title,
            description=description,
            generation_status="generated" if plan else "none",
            execution_status="none",
            phase="Implementation" if approved else "Requirements",
            current_phase="complete" if plan else "explore",
            engine="plan" if plan else None,
            plan=body.plan,
            budget_micro_usd=plan.budget_micro_usd if plan else 0,
            design={"architecture": plan.design, "data_model": None, "api_spec": []} if plan and plan.design else None,
            requirements_approved=approved,
            requirements_approved_at=now if approved else None,
            design_approved=approved,
            design_approved_at=now if approved else None,
            phase_data=rules.phase_data(plan) if plan else {},
            target_branch=rules.target_branch(title, spec_id, taken),
        )
        spec.status = rules.status_of(state_of(spec))
        await store.add(tx, spec)
        return spec

    async def _apply(self, tx: Tx, spec: Spec, plan: Plan) -> tuple[int, int]:
        """Requirements, tickets and tasks of a plan; its symbolic ids become real ones. Returns how many."""
        requirement_ids = {item.key: new_id("req-") for item in plan.requirements}
        await store.add_requirements(
            tx,
            [
                {
                    "id": requirement_ids[item.key],
                    "spec_id": spec.id,
                    "local_id": item.key,
                    "position": place,
                    "title": item.title,
                    "condition": item.condition,
                    "action": item.action,
                }
                for place, item in enumerate(plan.requirements)
            ],
        )
        await store.add_criteria(
            tx,
            [
                {
                    "id": new_id("crit-"),
                    "spec_id": spec.id,
                    "requirement_id": requirement_ids[item.key],
                    "position": place,
                    "text": text,
                }
                for item in plan.requirements
                for place, text in enumerate(item.criteria)
            ],
        )
        tickets = await self._tickets(tx, spec, plan, requirement_ids)
        task_ids = {task.key: new_id() for task in plan.tasks}
        spec_task_ids = {task.key: new_id("spec-task-") for task in plan.tasks}
        await store.add_spec_tasks(
            tx,
            [
                {
                    "id": spec_task_ids[task.key],
                    "spec_id": spec.id,
                    "local_id": task.key,
                    "task_id": task_ids[task.key],
                    "position": place,
                    "title": task.title,
                    "description": task.description or None,
                    "phase": rules.phase_of_task(task.task_type),
                    "priority": task.priority.lower(),
                    "dependencies": [spec_task_ids[key] for key in task.depends_on],
                }
                for place, task in enumerate(plan.tasks)
            ],
        )
        ticket_of = rules.ticket_of(plan)
        drafts = [
            TaskDraft(
                id=task_ids[task.key],
                organization_id=spec.organization_id,
                project_id=spec.project_id,
                ticket_id=tickets[ticket_of[task.key]],
                title=task.title,
                description=task.description or None,
                task_type=task.task_type,
                phase_id=rules.queue_phase(rules.phase_of_task(task.task_type))[0],
                priority=task.priority,
                holds=int(Hold.SPEC_NOT_EXECUTING),
                spec_id=spec.id,
                spec_task_id=spec_task_ids[task.key],
                target_branch=spec.target_branch,
                depends_on=tuple(task_ids[key] for key in task.depends_on),
                required_capabilities=task.capabilities,
                owned_files=task.files,
                execution_config=rules.execution_config(task),
                context={"local_id": task.key},
                max_retries=task.retries,
                timeout_seconds=task.timeout_s,
            )
            for task in plan.tasks
        ]
        await self._queue.create(tx, drafts, announce=False)
        return len(plan.requirements), len(plan.tasks)

    async def _tickets(self, tx: Tx, spec: Spec, plan: Plan, requirement_ids: dict[str, str]) -> dict[str | None, str]:
        """A ticket for each requirement that has tasks, and one for the tasks that name none; ids by requirement."""
        used = set(rules.ticket_of(plan).values())
        keys: list[str | None] = [item.key for item in plan.requirements if item.key in used]
        if None in used:
            keys.append(None)
        by_key = {item.key: item for item in plan.requirements}
        rows = []
        for key in keys:
            requirement = by_key[key] if key is not None else None
            text = (
                f"WHEN {requirement.condition} THE SYSTEM SHALL {requirement.action}."
                if requirement
                else plan.description or None
            )
            rows.append(
                {
                    "id": new_id(),
                    "organization_id": spec.organization_id,
                    "project_id": spec.project_id,
                    "spec_id": spec.id,
                    "requirement_id": requirement_ids[key] if key is not None else None,
                    "title": requirement.title if requirement else spec.title,
                    "description": text,
                    "priority": _highest(plan, key),
                    "user_id": spec.user_id,
                    "context": {
                        "spec_id": spec.id,
                        "spec_title": spec.title,
                        "local_ticket_id": key,
                        "source": "plan",
                        "workflow_mode": "spec_driven",
                    },
                }
            )
        await self._engine.create(tx, rows)
        return {key: row["id"] for key, row in zip(keys, rows, strict=True)}  # type: ignore[misc]

    # Reading

    async def require(self, tx: Tx, principal: Principal, permission: str, spec_id: str, *, lock: bool = False) -> Spec:
        """The spec, if the caller has `permission` there; 404 where it is unknown or foreign."""
        spec = await store.get(tx, spec_id, lock=lock)
        if spec is None:
            raise SPEC_NOT_FOUND()
        principal.require(permission, spec.organization_id, missing=SPEC_NOT_FOUND)
        return spec

    async def get(self, principal: Principal, spec_id: str) -> SpecOut:
        """One spec with all its parts."""
        async with self._db.reader() as tx:
            spec = await self.require(tx, principal, "document:read", spec_id)
            return (await self.out(tx, [spec], ALL_PARTS))[0]

    async def page(
        self, principal: Principal, project_id: str, status: str | None, include_archived: bool, limit: int, offset: int
    ) -> SpecList:
        """The specs of a project, newest first, each with its first parts."""
        async with self._db.reader() as tx:
            await self._projects.require(tx, principal, "document:read", project_id)
            rows, total = await store.page(tx, project_id, status, include_archived, limit, offset)
            return SpecList(specs=await self.out(tx, rows, PARTS_IN_LIST), total=total)

    async def out(self, tx: Tx, specs: Sequence[Spec], parts: int) -> list[SpecOut]:
        """The answers of rows."""
        ids = [spec.id for spec in specs]
        if not ids:
            return []
        requirements = await requirements_out(tx, await store.requirements(tx, ids, parts))
        tasks: dict[str, list[SpecTaskOut]] = {}
        for row in await store.spec_tasks(tx, ids, parts):
            tasks.setdefault(row[0].spec_id, []).append(spec_task_out(*row))
        linked = await store.ticket_counts(tx, ids)
        agents = await store.active_agents(tx, ids)
        commits = await store.commit_counts(tx, ids)
        return [
            _out(
                spec,
                requirements.get(spec.id, []),
                tasks.get(spec.id, []),
                linked.get(spec.id, 0),
                agents.get(spec.id, 0),
                commits.get(spec.id, (0, 0, 0)),
            )
            for spec in specs
        ]

    # Changing

    async def patch(self, principal: Principal, spec_id: str, body: SpecPatch) -> SpecOut:
        """Change title, description or phase. A status is derived from the work and is refused with 422."""
        if body.phase is not None and body.phase not in rules.PHASES:
            raise invalid("phase", f"must be one of {', '.join(rules.PHASES)}", body.phase)
        async with self._db.uow() as tx:
            spec = await self.require(tx, principal, "document:write", spec_id, lock=True)
            if body.status is not None and body.status != spec.status:
                raise invalid("status", "is derived from approvals and executions; use those operations", body.status)
            given = {name: getattr(body, name) for name in ("title", "description", "phase")}
            changes = {k: v for k, v in given.items() if v is not None and getattr(spec, k) != v}
            if changes:
                details = {name: {"old": getattr(spec, name), "new": value} for name, value in changes.items()}
                for name, value in changes.items():
                    setattr(spec, name, value)
                kind = "phase_changed" if "phase" in changes else "updated"
                await self.changed(tx, spec, kind, f"Changed {', '.join(changes)}", details, principal.subject)
            return tx.result((await self.out(tx, [spec], ALL_PARTS))[0])

    async def archive(self, principal: Principal, spec_id: str) -> Message:
        """Archive: a running execution is cancelled, its tickets leave lists and boards."""
        async with self._db.uow() as tx:
            await self.require(tx, principal, "document:write", spec_id)
            await self._coordination.cancel(tx, spec_id, "spec_archived")
            spec = await self.require(tx, principal, "document:write", spec_id, lock=True)
            await self._engine.hide(tx, spec_id, True)
            if not spec.archived:
                spec.archived, spec.archived_at = True, await store.now(tx)
                await self.changed(
                    tx, spec, "updated", "Archived", {"archived": {"old": False, "new": True}}, principal.subject
                )
            return tx.result(Message(message="Spec archived"))

    async def changed(
        self, tx: Tx, spec: Spec, kind: str, summary: str, details: dict[str, Any] | None, by: str | None
    ) -> None:
        """Record and tell a change of a locked spec."""
        spec.status = rules.status_of(state_of(spec))
        spec.version += 1
        spec.updated_at = await store.now(tx)
        await tx.session.flush()
        await store.add_version(tx, spec, kind, summary, details, by)
        events.spec_updated(tx, spec, {name: change["new"] for name, change in (details or {}).items()})

    async def versions(self, principal: Principal, spec_id: str, limit: int) -> VersionList:
        """Recorded changes, newest first."""
        async with self._db.reader() as tx:
            await self.require(tx, principal, "document:read", spec_id)
            rows = await store.versions(tx, spec_id, limit)
        return VersionList(versions=[VersionOut.model_validate(row) for row in rows], total=len(rows))


def state_of(spec: Spec) -> SpecState:
    """What the status is derived from."""
    return SpecState(
        spec.generation_status,
        spec.execution_status,
        spec.requirements_approved,
        spec.design_approved,
        spec.pull_request_number is not None,
    )


async def requirements_out(tx: Tx, rows: Sequence[Requirement]) -> dict[str, list[RequirementOut]]:
    """The answers of requirements with their criteria, by spec."""
    criteria: dict[str, list[Criterion]] = {}
    for criterion in await store.criteria(tx, [row.id for row in rows]):
        criteria.setdefault(criterion.requirement_id, []).append(criterion)
    found: dict[str, list[RequirementOut]] = {}
    for row in rows:
        found.setdefault(row.spec_id, []).append(requirement_out(row, criteria.get(row.id, [])))
    return found


def requirement_out(row: Requirement, criteria: Sequence[Criterion]) -> RequirementOut:
    """The answer of a requirement."""
    return RequirementOut(
        id=row.id,
        local_id=row.local_id,
        title=row.title,
        condition=row.condition,
        action=row.action,
        criteria=[CriterionOut.model_validate(criterion) for criterion in criteria],
        linked_design=row.linked_design,
        status=row.status,
    )


def spec_task_out(
    row: SpecTask, status: str | None, merge_state: str | None, holds: int | None, agent: str | None
) -> SpecTaskOut:
    """The answer of a task of a spec with the state of its queue task."""
    held = bool((holds or 0) & Hold.DEPENDENCY_FAILED)
    return SpecTaskOut(
        id=row.id,
        local_id=row.local_id,
        task_id=row.task_id,
        title=row.title,
        description=row.description,
        phase=row.phase,
        priority=row.priority,
        status=rules.spec_task_status(status, merge_state or "none", held, row.status),
        assigned_agent=agent or row.assigned_agent,
        dependencies=row.dependencies,
        estimated_hours=row.estimated_hours,
        actual_hours=row.actual_hours,
    )


def _out(
    spec: Spec,
    requirements: list[RequirementOut],
    tasks: list[SpecTaskOut],
    linked: int,
    agents: int,
    work: tuple[int, int, int],
) -> SpecOut:
    started = spec.current_execution_id is not None
    execution = ExecutionOut(
        overall_progress=spec.progress,
        test_coverage=spec.test_coverage,
        active_agents=agents,
        commits=work[0],
        lines_added=work[1],
        lines_removed=work[2],
    )
    return SpecOut(
        id=spec.id,
        project_id=spec.project_id,
        title=spec.title,
        description=spec.description,
        status=spec.status,
        phase=spec.phase,
        current_phase=spec.current_phase,
        progress=spec.progress,
        test_coverage=spec.test_coverage,
        active_agents=agents,
        linked_tickets=max(linked, 1 if spec.spec_context.get("source_ticket_id") else 0),
        requirements=requirements,
        design=DesignOut.model_validate(spec.design) if spec.design else None,
        tasks=tasks,
        execution=execution if started else None,
        generation_status=spec.generation_status,
        execution_status=spec.execution_status,
        engine=spec.engine,
        budget_micro_usd=spec.budget_micro_usd,
        target_branch=spec.target_branch,
        execution_id=spec.current_execution_id,
        requirements_approved=spec.requirements_approved,
        design_approved=spec.design_approved,
        archived=spec.archived,
        branch_name=spec.branch_name,
        pull_request_url=spec.pull_request_url,
        pull_request_number=spec.pull_request_number,
        version=spec.version,
        created_at=spec.created_at,
        updated_at=spec.updated_at,
    )


def _highest(plan: Plan, key: str | None) -> str:
    """The highest priority among the tasks of a ticket."""
    ticket_of = rules.ticket_of(plan)
    ranks = [plans.PRIORITIES.index(task.priority) for task in plan.tasks if ticket_of[task.key] == key]
    return plans.PRIORITIES[min(ranks)]
