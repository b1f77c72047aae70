"""Calls of vcs's operations."""

from __future__ import annotations

from tests.e2e.access.recipe import Recipe, Scope

OWN_TICKET = frozenset({"sandbox"})

RECIPES: dict[str, Recipe] = {
    "commits.list_ticket_commits": Recipe(path={"ticket_id": "{commit_ticket_id}"}, machines=OWN_TICKET),
    "commits.link_commit": Recipe(body={"commit_sha": "{head_sha}", "agent_id": "agent-1"}),
    "commits.list_agent_commits": Recipe(path={"agent_id": "agent-1"}, scope=Scope.LISTS),
    "commits.get_commit": Recipe(machines=OWN_TICKET),
    "commits.get_commit_diff": Recipe(machines=OWN_TICKET),
    "branch_workflow.start_branch": Recipe(body={"ticket_id": "{ticket_id}", "ticket_title": "A branch"}),
    "branch_workflow.finish_branch": Recipe(body={"ticket_id": "{branch_ticket_id}", "branch_name": "{branch_name}"}),
    "branch_workflow.merge_branch": Recipe(body={"ticket_id": "{branch_ticket_id}"}),
    "branch_workflow.branch_status": Recipe(body={"ticket_id": "{branch_ticket_id}", "branch_name": "{branch_name}"}),
    "branch_workflow.push_branch": Recipe(body={"project_id": "{project_id}", "branch_name": "{pushable_branch}"}),
}
