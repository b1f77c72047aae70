"""Who may call what of this service. Git over smart HTTP guards itself (`mirror/routes.py`)."""

from __future__ import annotations

from servicekit.auth import SANDBOXES, USERS, Access, AccessTable

_PEOPLE_AND_SANDBOXES = USERS | SANDBOXES

ACCESS = AccessTable(
    operations={
        "commits.list_ticket_commits": Access("ticket:read", _PEOPLE_AND_SANDBOXES),
        "commits.link_commit": Access("ticket:write"),
        "commits.list_agent_commits": Access("ticket:read"),
        "commits.get_commit": Access("ticket:read", _PEOPLE_AND_SANDBOXES),
        "commits.get_commit_diff": Access("ticket:read", _PEOPLE_AND_SANDBOXES),
        "branch_workflow.start_branch": Access("ticket:write", _PEOPLE_AND_SANDBOXES),
        "branch_workflow.finish_branch": Access("ticket:write", _PEOPLE_AND_SANDBOXES),
        "branch_workflow.merge_branch": Access("ticket:write"),
        "branch_workflow.branch_status": Access("project:read", _PEOPLE_AND_SANDBOXES),
        "branch_workflow.push_branch": Access("project:write"),
    },
    rpcs={
        "BindRepository": frozenset({"workflow"}),
        "UnbindRepository": frozenset({"workflow"}),
        "BatchGetRepositories": frozenset({"workflow", "agents"}),
        "StartBranches": frozenset({"agents"}),
        "FinishBranch": frozenset({"agents"}),
        "StartMerge": frozenset({"workflow"}),
        "BatchGetMerges": frozenset({"workflow"}),
        "BatchCountCommits": frozenset({"workflow"}),
        "ReadFile": frozenset({"workflow", "agents"}),
        "ListRepositorySnapshot": frozenset({"workflow", "agents", "identity"}),
    },
    consumers={
        "replica": "keeps the project and the title of each ticket",
    },
)
