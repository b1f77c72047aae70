"""What each consumer is told: one scenario for each group of consumers of each service, as data.

The events are in the order in which they happened, with the versions that their emitters give them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.billing.events.v1 import events_pb2 as billing
from omoios.identity.events.v1 import events_pb2 as identity
from omoios.vcs.events.v1 import events_pb2 as vcs
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.db.event_options import event_type
from servicekit.events.registry import SERVICES, events_of
from tests.convergence import monitoring_scenarios, workflow_scenarios
from tests.convergence.harness import BEGIN, ORG, Fact, Scenario
from tests.convergence.samples import sample, task


def access() -> Scenario:
    """Members come, change and go; principals are revoked, some twice."""

    def member(user: str, version: int, role: str, active: bool = True) -> Fact:
        body = identity.MembershipChanged(
            user_id=user, organization_id=ORG, role=role, permissions=["task:read"], active=active, version=version
        )
        return Fact(body, f"{user}:{ORG}", version)

    def revoked(kind: str, name: str, minutes: int) -> Fact:
        body = identity.PrincipalRevoked(principal_type=kind, principal_id=name, reason="password changed")
        body.not_before.FromDatetime(BEGIN + timedelta(minutes=minutes))
        return Fact(body, f"{kind}:{name}", organization_id=None)

    return Scenario(
        [
            member("u-1", 1, "owner"),
            member("u-2", 1, "member"),
            revoked("user", "u-2", 1),
            member("u-2", 2, "viewer"),
            member("u-2", 3, "viewer", active=False),
            revoked("user", "u-2", 2),
            revoked("sandbox", "sandbox-1", 3),
            member("u-3", 1, "admin"),
            member("u-3", 2, "owner"),
            member("u-2", 4, "member"),
        ]
    )


def resources(owner: str) -> Scenario:
    """Resources of all other services become known, two of each kind."""
    kinds = [kind for service in SERVICES if service != owner for kind in events_of(service).values()]
    return Scenario(
        [
            Fact(sample(kind), f"{event_type(kind).aggregate}-{number}")
            for kind in kinds
            if event_type(kind).resource
            for number in (1, 2)
        ]
    )


def agents_sandboxes() -> Scenario:
    """Attempts of tasks end in each way; sandboxes of older attempts are still open when the news comes."""
    ends: list[tuple[str, int]] = [("t-1", 2), ("t-2", 1), ("t-3", 1), ("t-4", 2), ("t-5", 1)]
    seed = "".join(
        f"""
        INSERT INTO sandboxes (id, organization_id, project_id, task_id, ticket_id, spec_id, execution_id, agent_id,
            attempt, state, engine, isolation, branch, base_sha)
        VALUES ('sandbox-{name}-{attempt}', '{ORG}', 'project-1', '{name}', 'ticket-1', 'spec-1', 'execution-1',
            'agent-1', {attempt}, 'running', 'command', 'local', 'b', 'f');"""
        for name, last in ends
        for attempt in range(1, last + 1)
    )

    def told(kind: Any, name: str, attempt: int, version: int, status: str, *, ran: bool = True) -> Fact:
        sandbox = f"sandbox-{name}-{attempt}" if ran else ""
        return Fact(kind(task=task(name, status), attempt=attempt, sandbox_id=sandbox), name, version)

    return Scenario(
        [
            told(workflow.TaskRequeued, "t-1", 1, 3, "pending"),
            told(workflow.TaskCompleted, "t-1", 2, 6, "completed"),
            told(workflow.TaskFailed, "t-2", 1, 4, "failed"),
            told(workflow.TaskCancelled, "t-3", 1, 3, "cancelled"),
            told(workflow.TaskRetryScheduled, "t-4", 1, 4, "pending"),
            told(workflow.TaskCancelled, "t-4", 2, 6, "cancelled"),
            told(workflow.TaskRequeued, "t-5", 1, 3, "pending"),
            # Cancelled while it waited for its second attempt.
            told(workflow.TaskCancelled, "t-5", 1, 4, "cancelled", ran=False),
        ],
        seed=seed,
        made={"sandboxes": ["ended_at"], "revocations": ["due_at"]},
    )


def agents_departures() -> Scenario:
    """A member is removed and comes back, one loses the permission, one is suspended, one erases his account.

    Each has an agent of before, busy or idle; the first registers another after he came back.
    """
    people = ("u-1", "u-2", "u-3", "u-4", "u-5")
    later = (BEGIN + timedelta(minutes=5)).isoformat()
    seed = "".join(
        f"""
        INSERT INTO agents (id, organization_id, agent_name, agent_type, status, capabilities, capacity, health_status,
            tags, registered_by, created_at)
        VALUES ('agent-{name}', '{ORG}', 'n', 'worker', '{status}', '{{}}', 1, 'healthy', '{{}}', 'user:{user}',
            '{at}');
        INSERT INTO sandboxes (id, organization_id, project_id, task_id, ticket_id, spec_id, execution_id, agent_id,
            attempt, state, engine, isolation, branch, base_sha)
        VALUES ('sandbox-{name}', '{ORG}', 'project-1', 't-{name}', 'ticket-1', 'spec-1', 'execution-1',
            'agent-{name}', 1, '{"running" if status == "RUNNING" else "ended"}', 'command', 'local', 'b', 'f');"""
        for name, user, status, at in [
            *((user, user, "RUNNING" if user < "u-4" else "IDLE", BEGIN.isoformat()) for user in people),
            ("u-1-later", "u-1", "RUNNING", later),
        ]
    )

    def member(user: str, version: int, permission: str, active: bool = True) -> Fact:
        body = identity.MembershipChanged(
            user_id=user, organization_id=ORG, permissions=[permission], active=active, version=version
        )
        return Fact(body, f"{user}:{ORG}", version)

    return Scenario(
        [
            member("u-1", 2, "agent:*", active=False),
            member("u-2", 2, "agent:read"),
            Fact(identity.UserUpdated(user_id="u-3", is_active=False), "u-3", 3, None),
            Fact(identity.UserDeleted(user_id="u-4"), "u-4", 5, None),
            member("u-1", 3, "agent:*"),
            member("u-5", 2, "agent:write"),
            Fact(identity.UserUpdated(user_id="u-5", is_active=True), "u-5", 3, None),
        ],
        seed=seed,
        made={
            "sandboxes": ["ended_at"],
            "revocations": ["due_at"],
            "agent_status_transitions": ["id"],
        },
    )


def billing_ledger() -> Scenario:
    """An organization changes its address twice; executions end in each way, one was never reserved."""

    def organization(kind: Any, version: int, email: str) -> Fact:
        return Fact(kind(organization_id=ORG, name="Org", billing_email=email), ORG, version)

    def execution(kind: Any, name: str, version: int, **values: Any) -> Fact:
        return Fact(kind(execution_id=name, spec_id="spec-1", project_id="project-1", **values), name, version)

    started, finished = workflow.ExecutionStarted, workflow.ExecutionFinished
    return Scenario(
        [
            organization(identity.OrganizationCreated, 1, "first@example.com"),
            organization(identity.OrganizationUpdated, 2, "second@example.com"),
            organization(identity.OrganizationUpdated, 3, "third@example.com"),
            execution(started, "execution-1", 1),
            execution(started, "execution-2", 1),
            execution(finished, "execution-1", 2, outcome="completed"),
            execution(workflow.ExecutionRestated, "execution-1", 2, state="completed"),
            execution(started, "execution-3", 1),
            execution(finished, "execution-3", 2, outcome="failed"),
            execution(finished, "execution-2", 2, outcome="cancelled"),
            execution(started, "execution-4", 1),
            execution(workflow.ExecutionRestated, "execution-4", 1, state="running"),
        ],
        seed=TARIFF,
        made={
            "billing_accounts": ["id"],
            "reservations": ["id", "ended_at", "expires_at"],
            "ledger_entries": ["posting_id", "reference"],
        },
        path={"billing_accounts": ["version"], "reservations": ["version"]},
        why="A version counts changes; an execution whose end comes first is not confirmed in between.",
    )


TARIFF = """
    INSERT INTO plan_tiers (tier, price_micro_usd, workflows_limit, agents_limit, storage_limit_gb, included_micro_usd)
    VALUES ('free', 0, 3, 1, 2, 5000000);
    INSERT INTO prices (provider, model, version, prompt, completion)
    VALUES ('omoios', 'sandbox', 1, 28000000, 0), ('anthropic', 'claude-haiku', 1, 250000, 1250000);"""


def billing_costs() -> Scenario:
    """Usage of executions that run, that are settled, and of none; one usage is told in two events."""

    def usage(name: str, *entries: dict[str, Any]) -> Fact:
        body = agents.UsageRecorded()
        for entry in entries:
            body.entries.add(**{"task_id": "t-1", "sandbox_id": "s-1", "agent_id": "a-1"} | entry)
        return Fact(body, name)

    def seconds(usage_id: str, execution: str, milliseconds: int = 90_000) -> dict[str, Any]:
        return {
            "usage_id": usage_id,
            "execution_id": execution,
            "kind": "sandbox_seconds",
            "sandbox_milliseconds": milliseconds,
        }

    tokens = {
        "usage_id": "usage-4",
        "execution_id": "execution-1",
        "kind": "model_tokens",
        "provider": "anthropic",
        "model": "claude-haiku",
        "input_tokens": 120_000,
        "output_tokens": 9_000,
    }
    seed = f"""{TARIFF}
        INSERT INTO billing_accounts (id, organization_id, workflows_limit, agents_limit, included_micro_usd,
            period_ends_at, available_micro_usd, reserved_micro_usd, workflows_reserved)
        VALUES ('account-1', '{ORG}', 5, 1, 5000000, now() + interval '20 days', 4000000, 1000000, 1);
        INSERT INTO reservations (id, execution_id, organization_id, spec_id, project_id, state, reserved_micro_usd,
            expires_at)
        VALUES ('r-1', 'execution-1', '{ORG}', 'spec-1', 'project-1', 'confirmed', 1000000, '2026-11-23'),
            ('r-2', 'execution-2', '{ORG}', 'spec-1', 'project-1', 'settled', 0, '2026-11-23');"""
    return Scenario(
        [
            usage("s-1", seconds("usage-1", "execution-1"), seconds("usage-2", "execution-2")),
            usage("s-1", seconds("usage-2", "execution-2"), seconds("usage-3", "")),
            usage("s-1", tokens),
            usage("s-2", seconds("usage-5", "execution-1", 1), seconds("usage-6", "execution-2", 61_001)),
        ],
        seed=seed,
        made={"cost_records": ["id"], "ledger_entries": ["posting_id"], "billing_accounts": ["period_ends_at"]},
    )


def identity_replica() -> Scenario:
    """Projects are made, paused and archived; a repository moves; an account is opened, used and moved."""

    def repository(version: int, url: str, owner: str = "") -> Fact:
        body = vcs.RepositoryReady(project_id="project-1", url=url, github_owner=owner, github_repo=owner)
        return Fact(body, "project-1", version)

    def account(version: int, tier: str, used: int) -> Fact:
        body = billing.AccountChanged(account_id="account-1", tier=tier, sandbox_milliseconds_used=used)
        body.period_ends_at.FromDatetime(BEGIN)
        return Fact(body, "account-1", version)

    w = workflow
    return Scenario(
        [
            Fact(w.ProjectCreated(project_id="project-1", name="One"), "project-1", 1),
            Fact(w.ProjectUpdated(project_id="project-1", status="paused"), "project-1", 2),
            Fact(w.ProjectUpdated(project_id="project-1", status="active"), "project-1", 3),
            Fact(w.ProjectCreated(project_id="project-2", name="Two"), "project-2", 1),
            Fact(w.ProjectArchived(project_id="project-2"), "project-2", 2),
            repository(2, "https://example.com/one"),
            repository(4, "https://example.com/two", "octo"),
            Fact(billing.AccountCreated(account_id="account-1", tier="free"), "account-1"),
            account(3, "free", 60_000),
            account(5, "pro", 60_000),
            account(6, "pro", 90_000),
        ]
    )


def vcs_replica() -> Scenario:
    """Tickets become known."""
    created = workflow.TicketCreated
    return Scenario(
        [
            Fact(created(ticket_id=name, project_id="project-1", title=name), name)
            for name in ("ticket-1", "ticket-2", "ticket-3")
        ]
    )


SCENARIOS: dict[tuple[str, str], Scenario] = {
    **{(service, "access"): access() for service in SERVICES if service != "identity"},
    **{(service, "resources"): resources(service) for service in ("workflow", "agents", "monitoring", "billing")},
    ("agents", "departures"): agents_departures(),
    ("agents", "sandboxes"): agents_sandboxes(),
    ("billing", "costs"): billing_costs(),
    ("billing", "ledger"): billing_ledger(),
    ("identity", "replica"): identity_replica(),
    ("monitoring", "alerts"): monitoring_scenarios.alerts(),
    ("monitoring", "anomalies"): monitoring_scenarios.anomalies(),
    ("monitoring", "log"): monitoring_scenarios.log(),
    ("monitoring", "replica"): monitoring_scenarios.replica(),
    ("vcs", "replica"): vcs_replica(),
    ("workflow", "coordination"): workflow_scenarios.coordination(),
    ("workflow", "projects"): workflow_scenarios.projects(),
    ("workflow", "queue"): workflow_scenarios.queue(),
    ("workflow", "replica"): workflow_scenarios.replica(),
}
