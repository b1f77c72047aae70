"""The transition engine on a real database against a naive model: moves in both vocabularies, the overlay, gates, work.

The tables of legal moves stand here a second time, by hand: what the rules say more or less than these is found. Each
move leaves one row of history that begins where the last one ended, one event, and the counts of the board.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from servicekit.ids import new_id
from servicekit.testing.profiles import examples
from workflow_service.engine import store
from workflow_service.phases.schemas import ArtifactCreate, PhaseTransition
from workflow_service.queue.claims_service import AttemptRef
from workflow_service.tickets.schemas import TicketCreate, TicketPatch, TransitionBody

from .machine_world import World, member

STATUSES = ["backlog", "analyzing", "building", "building-done", "testing", "done"]
LEGAL = {
    ("backlog", "analyzing"),
    ("analyzing", "building"),
    ("building", "building-done"),
    ("building-done", "testing"),
    ("testing", "done"),
    ("testing", "building"),
}
OUT_OF_OVERLAY = {"analyzing", "building", "building-done", "testing"}
# The phase that a status leads to, and the status that a phase has.
LEADS_TO = dict(
    zip(STATUSES, ["BACKLOG", "REQUIREMENTS", "IMPLEMENTATION", "DEPLOYMENT", "TESTING", "DONE"], strict=True)
)
STATUS_OF = {phase: status for status, phase in LEADS_TO.items()} | {"DESIGN": "analyzing"}
# In the order of the work.
PHASES = ["BACKLOG", "REQUIREMENTS", "DESIGN", "IMPLEMENTATION", "TESTING", "DEPLOYMENT", "DONE", "BLOCKED"]
FOLLOW = {
    "BACKLOG": {"REQUIREMENTS", "IMPLEMENTATION"},
    "REQUIREMENTS": {"DESIGN", "IMPLEMENTATION"},
    "DESIGN": {"IMPLEMENTATION"},
    "IMPLEMENTATION": {"TESTING", "DONE"},
    "TESTING": {"DEPLOYMENT", "IMPLEMENTATION", "DONE"},
    "DEPLOYMENT": {"DONE"},
    "DONE": set[str](),
    "BLOCKED": {"BACKLOG", "REQUIREMENTS", "DESIGN", "IMPLEMENTATION", "TESTING"},
}
EVIDENCE: dict[str, dict[str, dict[str, Any]]] = {
    "REQUIREMENTS": {"requirements_document": {"length": 900, "sections": ["scope", "acceptance_criteria"]}},
    "IMPLEMENTATION": {"code_changes": {"has_tests": True}, "test_coverage": {"percentage": 80}},
    "TESTING": {"test_results": {"all_passed": True}, "test_evidence": {}},
}
_TICKET = """
SELECT phase_id, status, is_blocked, previous_phase_id, version,
    (SELECT count(*) FROM outbox WHERE aggregate_id = t.id AND subject = 'workflow.ticket.transitioned.v1') AS told
FROM tickets t WHERE id = $1
"""
_HISTORY = """
SELECT from_phase, to_phase, from_status, to_status FROM phase_history WHERE ticket_id = $1 ORDER BY id
"""


class TicketMachine(RuleBasedStateMachine):
    """One ticket with the work that belongs to it. A task in the model: its phase, and whether the overlay stops it."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.organization = new_id()
        self.owner = member(self.organization)
        self.project = self.world.do(self.world.project(self.organization))
        body = TicketCreate(title="A ticket", project_id=self.project, phase_id="PHASE_BACKLOG")
        self.ticket = self.world.do(self.world.tickets.create(self.owner, body, None)).id
        self.phase, self.status, self.blocked = "BACKLOG", "backlog", False
        self.before: str | None = None
        self.moves: list[tuple[str, str, str, str]] = []
        self.work: list[tuple[str, bool]] = [("BACKLOG", False)]
        self.done_in: list[str] = []
        self.proven: set[str] = set()
        self.version = 0
        self.check(moved=True)

    # The model

    def gate_is_met(self) -> bool:
        if self.phase not in EVIDENCE:
            return True
        at_work = any(phase == self.phase for phase, _ in self.work)
        return self.phase in self.proven and self.phase in self.done_in and not at_work

    def may_take(self, phase: str, force: bool) -> bool:
        if phase == self.phase:
            return False
        if force or phase == "BLOCKED":
            return True
        if self.blocked and phase not in FOLLOW["BLOCKED"]:
            return False
        if phase not in FOLLOW[self.phase] and not (self.phase == "BLOCKED" and phase == self.before):
            return False
        return PHASES.index(phase) < PHASES.index(self.phase) or self.gate_is_met()

    def went(self, phase: str, status: str, *, blocked: bool = False) -> None:
        self.moves.append((self.phase, phase, self.status, status))
        self.before, self.phase, self.status = self.phase, phase, status
        self.overlay(blocked)

    def overlay(self, on: bool) -> None:
        """Set or cleared: with it what is left to do is stopped, or goes on."""
        if on != self.blocked:
            self.blocked = on
            self.work = [(phase, on) for phase, _ in self.work]

    def took(self, phase: str) -> None:
        if phase == "BLOCKED":
            self.went(phase, self.status, blocked=True)
        else:
            self.went(phase, STATUS_OF[phase])

    # The rows

    def check(self, *, moved: bool) -> None:
        """The rows say what the model says. `moved`: the version must have grown, else it must not have changed."""
        row = self.world.do(self.world.fetch(_TICKET, self.ticket))[0]
        before = f"PHASE_{self.before}" if self.before else None
        found = (row["phase_id"], row["status"], row["is_blocked"], row["previous_phase_id"])
        assert found == (f"PHASE_{self.phase}", self.status, self.blocked, before)
        assert row["version"] > self.version if moved else row["version"] == self.version
        self.version = row["version"]
        history = [tuple(one) for one in self.world.do(self.world.fetch(_HISTORY, self.ticket))]
        assert history == [(f"PHASE_{a}", f"PHASE_{b}", c, d) for a, b, c, d in self.moves]
        assert row["told"] == len(self.moves)
        assert self.world.do(self.counts()) == [(self.project, row["phase_id"], self.status, "MEDIUM", 1)]

    async def counts(self) -> list[tuple[str, str, str, str, int]]:
        async with self.world.db.reader() as tx:
            return await store.counts(tx, project_ids=[self.project])

    def attempt(self, work: Coroutine[Any, Any, Any], possible: bool) -> None:
        assert self.world.refusal(work) == (None if possible else "workflow.transition_refused")

    # Moves

    @rule(status=st.sampled_from(STATUSES), how=st.sampled_from(["move", "move", "force", "back", "patch"]))
    def by_status(self, status: str, how: str) -> None:
        tickets = self.world.tickets
        possible = how == "force" or (status in OUT_OF_OVERLAY if self.blocked else (self.status, status) in LEGAL)
        if status == self.status and not self.blocked:
            possible = False
        if how == "back":
            self.attempt(tickets.regress(self.owner, self.ticket, status, "not yet"), possible)
        elif how == "patch":
            # The own status in a form that is sent back is no move.
            same = status == self.status
            self.attempt(tickets.patch(self.owner, self.ticket, TicketPatch(status=status)), possible or same)
            possible = possible and not same
        else:
            body = TransitionBody(to_status=status, force=how == "force")
            self.attempt(tickets.transition(self.owner, self.ticket, body), possible)
        if possible:
            self.went(LEADS_TO[status], status)
        self.check(moved=possible)

    @rule(phase=st.sampled_from(PHASES), force=st.sampled_from([False, False, False, True]))
    def by_phase(self, phase: str, force: bool) -> None:
        possible = self.may_take(phase, force)
        body = PhaseTransition(to_phase=f"PHASE_{phase}", force=force, spawn_tasks=False)
        self.attempt(self.world.phases.transition(self.owner, self.ticket, body), possible)
        if possible:
            self.took(phase)
        self.check(moved=possible)

    @rule()
    def survey(self) -> None:
        """Whatever is not legal here is refused and changes nothing; the answer about each phase is the model's."""
        legal = OUT_OF_OVERLAY if self.blocked else {after for before, after in LEGAL if before == self.status}
        for status in STATUSES:
            if status not in legal:
                body = TransitionBody(to_status=status)
                self.attempt(self.world.tickets.transition(self.owner, self.ticket, body), False)
        for phase in PHASES:
            asked = self.world.do(self.world.phases.can_transition(self.owner, self.ticket, f"PHASE_{phase}"))
            assert asked.can_transition == self.may_take(phase, False)
        self.check(moved=False)

    @rule()
    def progress(self) -> None:
        possible = not self.blocked and self.status != "done" and self.gate_is_met()
        self.world.do(self.world.tickets.progress(self.owner, self.ticket))
        if possible:
            status = STATUSES[STATUSES.index(self.status) + 1]
            self.went(LEADS_TO[status], status)
        self.check(moved=possible)

    @rule(name=st.sampled_from(["nowhere", "blocked", ""]))
    def to_what_is_no_status(self, name: str) -> None:
        body = TransitionBody(to_status=name, force=True)
        self.attempt(self.world.tickets.transition(self.owner, self.ticket, body), False)
        self.check(moved=False)

    # The overlay

    @rule()
    def block(self) -> None:
        possible = not self.blocked and self.status != "done"
        self.world.do(self.world.tickets.block(self.owner, self.ticket, "environment", ""))
        if possible:
            self.overlay(True)
            # The remedy may run while the rest waits.
            self.work.append((self.phase, False))
        self.check(moved=possible)

    @rule()
    def unblock(self) -> None:
        was, phase = self.blocked, self.phase
        self.world.do(self.world.tickets.unblock(self.owner, self.ticket))
        if was and phase == "BLOCKED":
            self.took(self.before or "BACKLOG")
        elif was:
            self.overlay(False)
        self.check(moved=was)

    # Work

    @precondition(lambda self: self.phase in EVIDENCE)
    @rule()
    def prove(self) -> None:
        for kind, content in EVIDENCE[self.phase].items():
            body = ArtifactCreate(phase_id=f"PHASE_{self.phase}", artifact_type=kind, artifact_content=content)
            self.world.do(self.world.phases.add_artifact(self.owner, self.ticket, body))
        self.proven.add(self.phase)
        self.check(moved=False)

    @precondition(lambda self: self.phase in EVIDENCE and not self.blocked)
    @rule()
    def seed(self) -> None:
        """The default task of the phase, unless it has work already."""
        at_work = any(phase == self.phase for phase, _ in self.work)
        made = self.world.do(self.world.phases.spawn_tasks(self.owner, self.ticket, None))
        assert made.tasks_spawned == (0 if at_work else 1)
        if not at_work:
            self.work.append((self.phase, False))
        self.check(moved=False)

    @rule()
    def complete(self) -> None:
        """Runners take what the overlay does not stop, and complete it."""
        claims = self.world.claims
        ids = [new_id("sandbox-") for _ in range(20)]
        found = self.world.do(
            claims.claim(organization_ids=[self.organization], agent_id="a-1", maximum=20, sandbox_ids=ids)
        )
        free = [phase for phase, stopped in self.work if not stopped]
        assert sorted(one.phase_id for one in found) == sorted(f"PHASE_{phase}" for phase in free)
        for one in found:
            self.world.do(claims.complete(AttemptRef(one.id, one.attempt, one.sandbox_id), {}, "", ""))
        self.done_in += free
        self.work = [one for one in self.work if one[1]]
        self.check(moved=False)

    @rule()
    def work_started(self) -> None:
        async def act() -> None:
            async with self.world.db.uow() as tx:
                await self.world.engine.work_started(tx, self.ticket)

        self.world.do(act())
        early = PHASES.index(self.phase) < PHASES.index("IMPLEMENTATION")
        possible = early and not self.blocked and self.status != "done"
        if possible:
            self.took("IMPLEMENTATION")
        self.check(moved=possible)

    @rule(phase=st.sampled_from(["REQUIREMENTS", "IMPLEMENTATION", "TESTING"]))
    def work_ended(self, phase: str) -> None:
        async def act() -> None:
            async with self.world.db.uow() as tx:
                await self.world.engine.work_ended(tx, self.ticket, f"PHASE_{phase}")

        self.world.do(act())
        possible = not self.work and not self.blocked and self.status != "done"
        if phase == "REQUIREMENTS":
            possible = possible and self.gate_is_met()
            if possible:
                status = STATUSES[STATUSES.index(self.status) + 1]
                self.went(LEADS_TO[status], status)
        elif possible:
            self.took("DONE")
        self.check(moved=possible)


@pytest.mark.timeout(300)
def test_any_sequence_leaves_the_ticket_as_the_model_says(world: World) -> None:
    class Machine(TicketMachine):
        pass

    Machine.world = world
    run_state_machine_as_test(
        Machine,
        # To make a failing example small takes minutes here: add Phase.shrink by hand.
        settings=settings(max_examples=examples(15), phases=[Phase.generate]),
    )
