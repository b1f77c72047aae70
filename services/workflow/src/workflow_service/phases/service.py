"""Use cases of phases: the registry, gates, and moves named by phase."""

from __future__ import annotations

from servicekit.auth import Principal
from servicekit.db import Database, Tx
from servicekit.errors import AppError, Kind
from workflow_service.engine import rules
from workflow_service.engine.rules import Phase, Refusal
from workflow_service.engine.service import EngineService
from workflow_service.engine.tables import Ticket
from workflow_service.errors import PHASE_NOT_FOUND, TRANSITION_REFUSED
from workflow_service.phases.schemas import (
    ArtifactCreate,
    ArtifactOut,
    CanTransition,
    CheckAdvance,
    GateStatus,
    GateValidation,
    PhaseInfo,
    PhaseMove,
    PhaseTransition,
    SpawnedTasks,
)


class PhaseService:
    """Phases of tickets; the engine decides and moves."""

    def __init__(self, db: Database, engine: EngineService) -> None:
        self._db = db
        self._engine = engine

    def all(self) -> list[PhaseInfo]:
        """The registry in its order."""
        return [_info(phase) for phase in sorted(rules.PHASES.values(), key=lambda phase: phase.sequence_order)]

    def one(self, phase_id: str) -> PhaseInfo:
        """One phase. Raises 404 for one that the registry does not hold."""
        return _info(rules.PHASES[_known(phase_id)])

    async def validate_gate(self, principal: Principal, ticket_id: str, phase_id: str | None) -> GateValidation:
        """Collect the evidence, evaluate the gate and keep what was found."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id)
            phase = _known(phase_id) if phase_id else ticket.phase_id
            report = await self._engine.gates.validate(tx, ticket, phase, principal.subject)
            return tx.result(
                GateValidation(
                    gate_status="passed" if report.met else "failed",
                    requirements_met=report.met,
                    blocking_reasons=list(report.reasons),
                )
            )

    async def gate_status(self, principal: Principal, ticket_id: str, phase_id: str | None) -> GateStatus:
        """How the gate stands, by the evidence that was collected."""
        async with self._db.reader() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:read", ticket_id)
            phase = _known(phase_id) if phase_id else ticket.phase_id
            report = await self._engine.gates.evaluate(tx, ticket, phase, collect=False)
        return GateStatus(
            requirements_met=report.met,
            missing_artifacts=list(report.missing_artifacts),
            validation_status=report.validation_status,
        )

    async def add_artifact(self, principal: Principal, ticket_id: str, body: ArtifactCreate) -> ArtifactOut:
        """Keep evidence; one of the same type and path in that phase is replaced."""
        phase = _known(body.phase_id)
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id)
            row = await self._engine.gates.keep(
                tx,
                ticket,
                phase,
                body.artifact_type,
                body.artifact_path,
                body.artifact_content,
                body.collected_by,
            )
            return tx.result(ArtifactOut.model_validate(row))

    async def transition(self, principal: Principal, ticket_id: str, body: PhaseTransition) -> PhaseMove:
        """Move to a phase. Raises 400 whose detail holds the reasons, 404 for an unknown phase also with `force`."""
        target = _known(body.to_phase)
        return await self._move(principal, ticket_id, target, body.reason, force=body.force, spawn=body.spawn_tasks)

    async def fast_track(self, principal: Principal, ticket_id: str, reason: str | None) -> PhaseMove:
        """To implementation from any phase before it; `success` is false when the ticket is there or further."""
        async with self._db.reader() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id)
        order = rules.PHASES[rules.IMPLEMENTATION].sequence_order
        if rules.PHASES[ticket.phase_id].sequence_order >= order:
            return _stays(ticket, rules.IMPLEMENTATION, reason, ["the ticket is at implementation or after it"])
        listed = rules.IMPLEMENTATION in rules.PHASES[ticket.phase_id].allowed
        return await self._move(principal, ticket_id, rules.IMPLEMENTATION, reason, force=not listed, spawn=True)

    async def complete(self, principal: Principal, ticket_id: str, reason: str | None, force: bool) -> PhaseMove:
        """To done, through the gate of the current phase unless forced."""
        return await self._move(principal, ticket_id, rules.DONE, reason, force=force, spawn=False)

    async def _move(
        self, principal: Principal, ticket_id: str, target: str, reason: str | None, *, force: bool, spawn: bool
    ) -> PhaseMove:
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            collected = await self._engine.gates.collect(tx, ticket, ticket.phase_id)
            decision = await self._engine.move_to_phase(
                tx, ticket, target, principal.subject, reason or "", force=force
            )
            if isinstance(decision, Refusal):
                raise _refused(decision)
            spawned = await self._seed(tx, ticket) if spawn else []
            return tx.result(
                PhaseMove(
                    success=True,
                    ticket_id=ticket_id,
                    from_phase=decision.from_phase,
                    to_phase=decision.to_phase,
                    from_status=decision.from_status,
                    to_status=decision.to_status,
                    reason=reason,
                    artifacts_collected=collected,
                    tasks_spawned=len(spawned),
                    blocking_reasons=[],
                )
            )

    async def _seed(self, tx: Tx, ticket: Ticket) -> list[str]:
        phase = rules.PHASES[ticket.phase_id]
        if phase.is_terminal or await self._engine.has_live_task(tx, ticket.id, phase.id):
            return []
        return [await self._engine.enqueue(tx, ticket, kind, phase.id, {}) for kind in phase.default_tasks]

    async def spawn_tasks(self, principal: Principal, ticket_id: str, phase_id: str | None) -> SpawnedTasks:
        """The default tasks of a phase, unless it has work already."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            phase = rules.PHASES[_known(phase_id) if phase_id else ticket.phase_id]
            made: list[str] = []
            error = None
            if phase.is_terminal:
                error = f"{phase.id} has no tasks"
            elif await self._engine.has_live_task(tx, ticket.id, phase.id):
                error = f"{phase.id} has work already"
            elif phase.default_tasks:
                made.append(await self._engine.enqueue(tx, ticket, phase.default_tasks[0], phase.id, {}))
            return tx.result(
                SpawnedTasks(
                    ticket_id=ticket_id,
                    phase=phase.id,
                    phase_id=phase.id,
                    tasks_spawned=len(made),
                    task_ids=made,
                    error=error,
                )
            )

    async def check_advance(self, principal: Principal, ticket_id: str) -> CheckAdvance:
        """To the next phase, if the gate of the current one is met; reasons otherwise."""
        async with self._db.uow() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:write", ticket_id, lock=True)
            phase = rules.PHASES[ticket.phase_id]
            here = {"from_phase": phase.id, "from_status": ticket.status}
            if phase.is_terminal or ticket.is_blocked or not phase.allowed:
                return tx.result(_advance(ticket_id, False, here, None, None, []))
            decision = await self._engine.move_to_phase(tx, ticket, phase.allowed[0], principal.subject, "gate met")
            if isinstance(decision, Refusal):
                return tx.result(_advance(ticket_id, True, here, None, None, list(decision.reasons)))
            return tx.result(_advance(ticket_id, True, here, decision.to_phase, decision.to_status, []))

    async def can_transition(self, principal: Principal, ticket_id: str, to_phase: str) -> CanTransition:
        """Whether the ticket may move there now, by the evidence that was collected."""
        target = _known(to_phase)
        async with self._db.reader() as tx:
            ticket = await self._engine.require(tx, principal, "ticket:read", ticket_id)
            decision = await self._engine.would_move(tx, ticket, target)
        reasons = list(decision.reasons) if isinstance(decision, Refusal) else []
        return CanTransition(ticket_id=ticket_id, to_phase=target, can_transition=not reasons, blocking_reasons=reasons)


def _known(phase_id: str) -> str:
    known = rules.known_phase(phase_id)
    if known is None:
        raise PHASE_NOT_FOUND()
    return known


def _info(phase: Phase) -> PhaseInfo:
    return PhaseInfo(
        id=phase.id,
        name=phase.name,
        description=phase.description,
        sequence_order=phase.sequence_order,
        allowed_transitions=list(phase.allowed_transitions),
        mapped_status=phase.mapped_status,
        execution_mode=phase.execution_mode,
        continuous_mode=phase.continuous_mode,
        is_terminal=phase.is_terminal,
        skippable=phase.skippable,
    )


def _refused(decision: Refusal) -> AppError:
    """The contract's object-shaped 400."""
    return AppError(
        TRANSITION_REFUSED.code,
        TRANSITION_REFUSED.detail,
        Kind.REFUSED,
        detail_object={"message": TRANSITION_REFUSED.detail, "blocking_reasons": list(decision.reasons)},
    )


def _stays(ticket: Ticket, target: str, reason: str | None, reasons: list[str]) -> PhaseMove:
    return PhaseMove(
        success=False,
        ticket_id=ticket.id,
        from_phase=ticket.phase_id,
        to_phase=target,
        from_status=ticket.status,
        to_status=ticket.status,
        reason=reason,
        artifacts_collected=0,
        tasks_spawned=0,
        blocking_reasons=reasons,
    )


def _advance(
    ticket_id: str, success: bool, here: dict[str, str], to_phase: str | None, to_status: str | None, reasons: list[str]
) -> CheckAdvance:
    return CheckAdvance(
        success=success,
        ticket_id=ticket_id,
        advanced=to_phase is not None,
        from_phase=here["from_phase"],
        from_status=here["from_status"],
        to_phase=to_phase,
        to_status=to_status,
        blocking_reasons=reasons,
    )
