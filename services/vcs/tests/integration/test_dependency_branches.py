"""Work that depends on what another branch holds begins with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omoios.vcs.v1 import vcs_pb2 as pb

from .conftest import ORGANIZATION, Vcs, git

OTHER = "ticket/other"
OWN = "ticket/own"


async def merged(vcs: Vcs, project: str, target: str, task_id: str, files: dict[str, str]) -> None:
    """Does a task's work and merges it into the target."""
    head = await vcs.work(project, task_id, files, base=target)
    item = pb.MergeItem(
        task_id=task_id, ticket_id="ticket-1", branch=f"omoios-tasks/{task_id}/1", head_sha=head, attempt=1
    )
    request = pb.StartMergeRequest(
        merge_id=f"merge-{task_id}",
        project_id=project,
        organization_id=ORGANIZATION,
        target_branch=target,
        items=[item],
    )
    await vcs.call("StartMerge", request, "workflow")
    await vcs.job("run-merges")


def mirror_of(vcs: Vcs, project: str) -> Path:
    return vcs.folder / "data" / "mirrors" / f"{project}.git"


def head(vcs: Vcs, project: str, branch: str) -> str:
    return git("rev-parse", branch, cwd=mirror_of(vcs, project))


async def start(vcs: Vcs, project: str, task_id: str, *dependencies: str, base: str = OWN) -> Any:
    branch, _ = await vcs.branch(project, task_id, base=base, dependencies=dependencies)
    return branch


async def test_the_other_branches_are_merged_into_the_base_once(vcs: Vcs) -> None:
    project = await vcs.project()
    await merged(vcs, project, OTHER, "task-1", {"one.txt": "1\n"})
    await merged(vcs, project, "omoios/spec", "task-2", {"two.txt": "2\n"})
    await merged(vcs, project, OWN, "task-3", {"three.txt": "3\n"})
    branch = await start(vcs, project, "task-4", OTHER, "omoios/spec", "ticket/never-made")
    assert branch.error_code == ""
    assert branch.base_sha == head(vcs, project, OWN)
    names = git("ls-tree", "-r", "--name-only", branch.base_sha, cwd=mirror_of(vcs, project)).split()
    assert {"one.txt", "two.txt", "three.txt"} <= set(names)
    message = git("log", "-1", "--format=%B", branch.base_sha, cwd=mirror_of(vcs, project))
    assert f"Merge omoios/spec into {OWN}" in message
    assert "OmoiOS-Task: task-4" in message
    assert await start(vcs, project, "task-4", OTHER, "omoios/spec") == branch
    assert (await start(vcs, project, "task-5", OTHER, "omoios/spec")).base_sha == branch.base_sha
    finish = pb.FinishBranchRequest(project_id=project, task_id="task-4", attempt=1, head_sha="")
    assert (await vcs.call("FinishBranch", finish, "agents")).commits == 0, "others' work is not its own"


async def test_a_conflict_is_told_and_changes_nothing(vcs: Vcs) -> None:
    project = await vcs.project()
    await merged(vcs, project, OTHER, "task-1", {"README.md": "theirs\n"})
    await merged(vcs, project, OWN, "task-2", {"README.md": "ours\n"})
    before = head(vcs, project, OWN)
    branch = await start(vcs, project, "task-3", OTHER)
    assert (branch.error_code, branch.branch) == ("vcs.dependencies_conflict", "")
    assert branch.error_detail == f"{OTHER}, needed by this work, conflicts with {OWN} in README.md."
    assert head(vcs, project, OWN) == before
    assert (await start(vcs, project, "task-3")).error_code == "", "without the dependency it begins"


async def test_only_branches_of_ours_are_merged_and_merged_into(vcs: Vcs) -> None:
    project = await vcs.project()
    for base, dependency in ((OWN, "main"), ("main", OTHER), (OWN, "../escape")):
        branch = await start(vcs, project, "task-1", dependency, base=base)
        assert (branch.error_code, branch.branch) == ("request.invalid", ""), (base, dependency)
