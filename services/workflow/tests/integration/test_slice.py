"""The main way through the service: project, spec with a plan, execution, claims, merges, end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from omoios.vcs.events.v1 import events_pb2 as vcs_events
from omoios.workflow.events.v1 import events_pb2 as own
from servicekit.ids import new_id
from workflow_service.coordination import merges_service


async def ready_project(flow: Any) -> Any:
    project = await flow.project(repository_url="https://example.test/repo.git", default_branch="main")
    await flow.job("bind-repositories")()
    await flow.deliver(
        vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="a" * 40), times=2
    )
    return project


async def test_a_spec_becomes_merged_branches(flow: Any) -> None:
    project = await ready_project(flow)
    assert flow.vcs.bound[0].url == "https://example.test/repo.git"
    stored = await flow.call("GET", f"/projects/{project['id']}")
    assert (stored["repository_state"], stored["head_sha"]) == ("ready", "a" * 40)

    spec = await flow.spec(project["id"])
    assert [one["local_id"] for one in spec["requirements"]] == ["REQ-1", "REQ-2"]
    assert [one["text"] for one in spec["requirements"][0]["criteria"]] == ["names the version", "exits with 0"]
    tasks = {one["local_id"]: one for one in spec["tasks"]}
    assert tasks["C"]["dependencies"] == [tasks["A"]["id"], tasks["B"]["id"]]
    assert (spec["status"], spec["budget_micro_usd"], spec["linked_tickets"]) == ("design", 2_500_000, 3)
    assert await flow.claim() == [], "nothing is handed out before the spec is executed"

    started = await flow.call("POST", f"/specs/{spec['id']}/execute")
    assert started["status"] == "started"
    assert flow.billing.reserved[0].execution_id == started["execution_id"]
    assert flow.billing.reserved[0].budget_micro_usd == 2_500_000
    again = await flow.call("POST", f"/specs/{spec['id']}/execute")
    assert (again["status"], again["execution_id"]) == ("already_running", started["execution_id"])

    claimed = await flow.claim()
    assert [one.title for one in claimed] == ["Write the greeting", "Write the log"], "the higher priority first"
    first = claimed[0]
    assert first.base_branch == "omoios/greeting"
    assert first.has_repository
    config = json.loads(first.execution_config_json)
    assert config["commands"] == ["echo hello > greeting.txt"]
    assert config["engine"] == "command"
    context = json.loads(first.context_json)
    assert context["requirements"][0]["acceptance_criteria"][0]["text"] == "names the version"
    for task in claimed:
        await flow.start(task)
    board = await flow.sql("SELECT phase_id FROM tickets WHERE id = $1", first.ticket_id)
    assert board[0]["phase_id"] == "PHASE_IMPLEMENTATION"

    assert await flow.complete(first, "b" * 40, result_json='{"exit_code": 0}') == "completed"
    assert await flow.complete(first, "b" * 40) == "completed", "the same report again changes nothing"
    await flow.complete(claimed[1], "c" * 40)
    assert await flow.claim() == [], "what depends on a branch waits for its merge"
    await flow.merge_all()

    last = await flow.claim()
    assert [one.title for one in last] == ["Check it all"]
    await flow.start(last[0])
    await flow.complete(last[0])

    done = await flow.call("GET", f"/specs/{spec['id']}")
    assert (done["status"], done["progress"], done["execution_status"]) == ("completed", 100.0, "completed")
    status = await flow.call("GET", f"/specs/{spec['id']}/execution-status")
    assert status["is_complete"]
    assert status["status_counts"] == {"pending": 0, "in_progress": 0, "completed": 3, "blocked": 0}
    finished = await flow.events("workflow.execution.finished.v1")
    assert len(finished) == 1
    body = own.ExecutionFinished.FromString(finished[0]["payload"])
    assert (body.outcome, body.tasks_completed, body.reservation_id) == (
        "completed", 3, f"res-{started['execution_id']}",
    )  # fmt: skip
    tickets = await flow.sql("SELECT status FROM tickets WHERE spec_id = $1", spec["id"])
    assert [row["status"] for row in tickets] == ["done"] * 3


async def test_merges_come_in_dependency_order_one_at_a_time(flow: Any) -> None:
    project = await ready_project(flow)
    plan = "# Chain\n## Tasks\n" + "".join(f"### T{n}: t{n}\n- Command: true\n" for n in range(3))
    spec = await flow.spec(project["id"], plan)
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    claimed = await flow.claim()
    await flow.complete(claimed[0], "1" * 40)
    await flow.job("run-merges")()
    await flow.complete(claimed[1], "2" * 40)
    await flow.complete(claimed[2], "3" * 40)
    await flow.job("run-merges")()
    assert [len(one.items) for one in flow.vcs.merges] == [1], "a second merge waits for the first to end"
    first = flow.vcs.merges.pop()
    merged = vcs_events.BranchMerged(merge_id=first.merge_id, task_id=claimed[0].task_id)
    finished = vcs_events.MergeFinished(merge_id=first.merge_id, merged_task_ids=[claimed[0].task_id])
    # The end overtakes the branch's own event, and both come twice.
    await flow.deliver(finished, times=2)
    await flow.deliver(merged, times=2)
    await flow.job("run-merges")()
    assert [len(one.items) for one in flow.vcs.merges] == [2]
    await flow.merge_all()
    assert (await flow.call("GET", f"/specs/{spec['id']}"))["status"] == "completed"
    assert len(await flow.events("workflow.execution.finished.v1")) == 1


async def test_more_branches_than_one_merge_takes_go_in_several(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merges_service, "MAX_ITEMS", 1)
    project = await ready_project(flow)
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    for number, task in enumerate(await flow.claim(2)):
        await flow.complete(task, str(number + 1) * 40)
    await flow.sql("UPDATE merges SET state = 'finished'")
    await flow.sql("UPDATE tasks SET merge_id = NULL")
    await flow.job("repair-merges")()
    await flow.job("run-merges")()
    assert [len(one.items) for one in flow.vcs.merges] == [1]
    await flow.merge_all()
    assert [one.title for one in await flow.claim()] == ["Check it all"]


async def test_a_conflict_stops_its_branch_only_and_becomes_a_task(flow: Any) -> None:
    project = await ready_project(flow)
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    greeting, log = await flow.claim()
    await flow.complete(greeting, "1" * 40)
    await flow.complete(log, "2" * 40)
    await flow.job("run-merges")()
    # The second was queued while the first merge was open.
    first = flow.vcs.merges.pop()
    await flow.deliver(vcs_events.BranchMerged(merge_id=first.merge_id, task_id=greeting.task_id))
    await flow.deliver(vcs_events.MergeFinished(merge_id=first.merge_id, merged_task_ids=[greeting.task_id]))
    await flow.job("run-merges")()
    second = flow.vcs.merges.pop()
    conflict = vcs_events.BranchConflicted(
        merge_id=second.merge_id, task_id=log.task_id, branch="omoios/task/log", conflicting_files=["log.txt"]
    )
    await flow.deliver(conflict, times=2)
    await flow.deliver(vcs_events.MergeFinished(merge_id=second.merge_id, conflicted_task_ids=[log.task_id]), times=2)
    resolution = await flow.claim()
    assert [one.task_type for one in resolution] == ["resolve_conflict"], "one task for one conflict"
    assert resolution[0].base_branch == "omoios/greeting"
    told = json.loads(resolution[0].context_json)["conflict"]
    assert (told["branch"], told["files"]) == ("omoios/task/log", ["log.txt"])
    await flow.complete(resolution[0], "3" * 40)
    assert await flow.claim() == []
    await flow.merge_all()
    assert [one.title for one in await flow.claim()] == ["Check it all"]
    states = await flow.sql("SELECT merge_state FROM tasks WHERE id = $1", log.task_id)
    assert states[0]["merge_state"] == "merged"


async def test_a_spec_tells_the_commits_and_lines_of_its_tasks(flow: Any) -> None:
    project = await ready_project(flow)
    spec = await flow.spec(project["id"])
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    greeting, log = await flow.claim()
    before = (await flow.call("GET", f"/specs/{spec['id']}"))["execution"]
    assert (before["commits"], before["lines_added"], before["lines_removed"]) == (0, 0, 0)

    def linked(*commits: tuple[str, int, int]) -> vcs_events.CommitsLinked:
        packed = [vcs_events.LinkedCommit(task_id=one, insertions=new, deletions=old) for one, new, old in commits]
        return vcs_events.CommitsLinked(project_id=project["id"], commits=packed)

    # A commit that was linked by hand belongs to no task, and one of these to a task that is gone.
    await flow.deliver(linked((greeting.task_id, 5, 1), (greeting.task_id, 2, 2), ("", 9, 9), (new_id(), 9, 9)))
    await flow.deliver(linked((log.task_id, 10, 0)))
    await flow.deliver(linked((log.task_id, 1, 0)))
    for found in (
        await flow.call("GET", f"/specs/{spec['id']}"),
        (await flow.call("GET", f"/specs/project/{project['id']}"))["specs"][0],
    ):
        told = found["execution"]
        assert (told["commits"], told["lines_added"], told["lines_removed"]) == (4, 18, 3)
