"""What monitoring, billing and vcs refuse because of the state of alerts, plans, branches and commits."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe
from tests.e2e.access.refusals.refusal import Refusal

REFUSALS = (
    Refusal(
        "alerts.acknowledge_alert",
        "monitoring.alert_resolved",
        Recipe(path={"alert_id": "{resolved_alert_id}"}, body={"acknowledged_by": "me"}),
    ),
    Refusal(
        "commits.link_commit",
        "vcs.commit_already_linked",
        Recipe(path={"ticket_id": "{linked_ticket_id}"}, body={"commit_sha": "{head_sha}", "agent_id": "agent-1"}),
    ),
    Refusal(
        "branch_workflow.push_branch",
        "vcs.git_failed",
        Recipe(body={"project_id": "{project_id}", "branch_name": "{diverged_branch}"}),
    ),
)
