"""What the consumers of workflow are told."""

from __future__ import annotations

from collections.abc import Iterable

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.billing.events.v1 import events_pb2 as billing
from omoios.identity.events.v1 import events_pb2 as identity
from omoios.vcs.events.v1 import events_pb2 as vcs
from tests.convergence.harness import BEGIN, ORG, Fact, Scenario


def _workflow_seed(tasks: Iterable[str]) -> str:
    """A project, a spec's execution and a ticket, and tasks given as the values of their rows."""
    rows = ",\n".join(tasks)
    return f"""
        INSERT INTO projects (id, organization_id, name, repository_state, default_branch)
        VALUES ('project-1', '{ORG}', 'One', 'mirroring', 'main'), ('project-2', '{ORG}', 'Two', 'mirroring', 'main'),
            ('project-3', '{ORG}', 'Three', 'mirroring', 'main');
        INSERT INTO tickets (id, organization_id, project_id, title, phase_id, status, priority)
        VALUES ('ticket-1', '{ORG}', 'project-1', 'Ticket', 'PHASE_IMPLEMENTATION', 'building', 'MEDIUM');
        INSERT INTO tasks (id, organization_id, project_id, ticket_id, phase_id, task_type, priority, spec_id,
            target_branch, status, attempt, sandbox_id, assigned_agent_id, claimed_at, merge_state, merge_id,
            merge_tries, head_sha, branch, completed_at, holds)
        VALUES {rows};"""


def _task_row(
    name: str,
    status: str,
    *,
    sandbox: str = "",
    merge: str = "",
    tries: int = 0,
    spec: str = "spec-1",
    holds: int = 0,
) -> str:
    def text(value: str) -> str:
        return f"'{value}'" if value else "NULL"

    state = "pending" if merge else "none"
    sha, branch = (text("f" * 40), text(f"omoios/task/{name}")) if merge else ("NULL", "NULL")
    ended = f"'{BEGIN.isoformat()}'" if status == "completed" else "NULL"
    return (
        f"('{name}', '{ORG}', 'project-1', 'ticket-1', 'PHASE_IMPLEMENTATION', 'implement_feature', 'MEDIUM',"
        f" {text(spec)}, 'omoios/spec-1', '{status}', 1, {text(sandbox)}, 'a-1', '{BEGIN.isoformat()}', '{state}',"
        f" {text(merge)}, {tries}, {sha}, {branch}, {ended}, {holds})"
    )


def projects() -> Scenario:
    """Repositories become ready, move, fail, and fail before they become ready after all."""

    def ready(project: str, version: int, sha: str, branch: str = "main", owner: str = "") -> Fact:
        body = vcs.RepositoryReady(
            project_id=project, default_branch=branch, head_sha=sha * 40, github_owner=owner, github_repo=owner
        )
        return Fact(body, project, version)

    def failed(project: str, version: int) -> Fact:
        return Fact(vcs.RepositoryFailed(project_id=project, error="no such host"), project, version)

    return Scenario(
        [
            ready("project-1", 2, "a"),
            ready("project-1", 3, "b", "trunk"),
            ready("project-1", 4, "c", "trunk", "octo"),
            failed("project-2", 2),
            ready("project-2", 3, "d"),
            failed("project-3", 2),
        ],
        seed=_workflow_seed([_task_row("t-0", "pending")]),
        path={"projects": ["version"]},
        why="A project's version counts its changes, and news that is out of date makes none.",
    )


def queue() -> Scenario:
    """Older sandboxes start, complete, stop and fail; some report after they lost their task, some are lost.

    The organization gets another plan.
    """

    def reported(name: str, kind: str, data: bytes = b"{}", attempt: int = 1) -> Fact:
        body = agents.SandboxLifecycleReported(
            sandbox_id=f"s-{name}", task_id=name, attempt=attempt, event_type=kind, data_json=data
        )
        return Fact(body, f"s-{name}")

    def ended(name: str, reason: str, attempt: int = 1) -> Fact:
        body = agents.SandboxEnded(sandbox_id=f"s-{name}", task_id=name, attempt=attempt, reason=reason)
        return Fact(body, f"s-{name}")

    def plan(tier: str, version: int) -> Fact:
        return Fact(billing.AccountChanged(account_id="account-1", tier=tier), "account-1", version)

    leased = ("t-1", "t-2", "t-3", "t-4", "t-5")
    return Scenario(
        [
            reported("t-1", "agent.started"),
            reported("t-1", "continuous.completed", b'{"validation_passed": true, "turns": 3}'),
            reported("t-2", "agent.started"),
            reported("t-2", "agent.failed", b'{"error": "syntax error"}'),
            reported("t-3", "agent.started"),
            reported("t-3", "agent.error", b"no JSON", attempt=7),
            reported("t-9", "agent.started"),
            # Taken from an agent in the middle of its work; of an attempt before; and in another way.
            ended("t-4", "lost"),
            ended("t-5", "lost", attempt=0),
            ended("t-5", "terminated"),
            plan("free", 2),
            plan("team", 3),
            plan("team", 4),
        ],
        seed=_workflow_seed([_task_row(name, "assigned", sandbox=f"s-{name}", spec="") for name in leased])
        + f"INSERT INTO queue_limits (organization_id, agents_limit) VALUES ('{ORG}', 1);",
        made={"tasks": ["started_at", "completed_at", "updated_at"], "tickets": ["updated_at", "status_entered_at"]},
        path={"tasks": ["version"]},
        why="A start that is heard of after the end is no state of its own.",
    )


def coordination() -> Scenario:
    """One merge with a branch that is merged, one that conflicts and one that fails for the last time.

    Commits of these tasks and of others are linked. Billing asks after an execution that nobody knows.
    """
    merged, conflicted, failed = "t-1", "t-2", "t-3"
    seed = _workflow_seed(
        _task_row(name, "completed", merge="merge-1", tries=9) for name in (merged, conflicted, failed)
    )
    seed += f"""
        INSERT INTO tasks (id, organization_id, project_id, ticket_id, phase_id, task_type, priority,
            unmet_dependencies)
        SELECT 'after-' || t.id, organization_id, project_id, ticket_id, phase_id, task_type, priority, 1 FROM tasks t;
        INSERT INTO task_dependencies (task_id, depends_on_id)
        SELECT 'after-' || id, id FROM tasks WHERE id IN ('{merged}', '{conflicted}', '{failed}');
        INSERT INTO merges (id, organization_id, project_id, spec_id, target_branch, state, items)
        VALUES ('merge-1', '{ORG}', 'project-1', 'spec-1', 'omoios/spec-1', 'started', '[]');"""

    def commits(*linked: tuple[str, int, int]) -> Fact:
        packed = [vcs.LinkedCommit(task_id=one, insertions=added, deletions=gone) for one, added, gone in linked]
        return Fact(vcs.CommitsLinked(project_id="project-1", commits=packed), "project-1")

    told = {"project_id": "project-1", "spec_id": "spec-1", "merge_id": "merge-1"}
    return Scenario(
        [
            Fact(vcs.BranchMerged(**told, task_id=merged), merged),
            Fact(vcs.BranchConflicted(**told, task_id=conflicted, conflicting_files=["a.py"]), conflicted),
            Fact(
                vcs.MergeFinished(
                    **told,
                    merged_task_ids=[merged],
                    conflicted_task_ids=[conflicted],
                    failed_task_ids=[failed],
                    error="the mirror is gone",
                ),
                "merge-1",
            ),
            commits((merged, 3, 1), (merged, 2, 0), (failed, 1, 1)),
            commits((merged, 10, 5), ("t-gone", 1, 1), ("", 7, 7)),
            Fact(billing.ReservationUnsettled(execution_id="execution-9", spec_id="spec-1"), "reservation-9"),
            # News of a merge that is not the tasks' own.
            Fact(vcs.BranchMerged(**told | {"merge_id": "merge-0"}, task_id=conflicted), conflicted),
        ],
        seed=seed,
        made={"tasks": ["id", "resolution_task_id", "score", "rescore_at"], "merges": ["finished_at"]},
        path={"tasks": ["version"]},
        why="A version counts the steps.",
    )


def replica() -> Scenario:
    """An organization changes its limits twice; another was made by an identity that told none."""
    made, changed = identity.OrganizationCreated, identity.OrganizationUpdated
    first = {"organization_id": ORG, "max_agent_runtime_hours": 100.0}
    return Scenario(
        [
            Fact(made(max_concurrent_agents=5, **first), ORG, 1),
            Fact(changed(max_concurrent_agents=7, **first), ORG, 2),
            Fact(changed(organization_id=ORG, max_concurrent_agents=3, max_agent_runtime_hours=0.5), ORG, 4),
            Fact(made(organization_id="organization-2"), "organization-2", 1),
        ]
    )
