"""Work of tickets that belong to no spec is merged into the branch of its ticket, before what waits for it begins."""

from __future__ import annotations

from typing import Any

import pytest

from omoios.vcs.events.v1 import events_pb2 as vcs_events

SHA = "a" * 40


async def autonomous(flow: Any, url: str | None = "https://example.com/r.git") -> Any:
    """A project whose tasks are claimed without a spec, and whose repository is ready where it has one."""
    project = await flow.project(repository_url=url)
    if url is not None:
        ready = vcs_events.RepositoryReady(project_id=project["id"], default_branch="main", head_sha="f" * 40)
        await flow.deliver(ready)
    return await flow.call("PATCH", f"/projects/{project['id']}", json={"autonomous_execution_enabled": True})


async def ticket_of(flow: Any, url: str | None = "https://example.com/r.git") -> Any:
    """A ticket of an autonomous project whose first task is done and left nothing to merge."""
    project = await autonomous(flow, url)
    ticket = await flow.call("POST", "/tickets", json={"title": "One", "project_id": project["id"]})
    (first,) = await flow.claim()
    await flow.complete(first)
    return ticket


async def task_of(flow: Any, ticket: Any, title: str, *depends_on: str) -> Any:
    body = {
        "ticket_id": ticket["id"],
        "title": title,
        "description": title,
        "task_type": "implement_feature",
        "phase_id": "PHASE_IMPLEMENTATION",
        "dependencies": {"depends_on": list(depends_on)},
    }
    return await flow.call("POST", "/tasks", 201, json=body)


async def merge_state(flow: Any, task_id: str) -> str:
    return str((await flow.call("GET", f"/tasks/{task_id}"))["merge_state"])


async def test_a_dependent_task_begins_on_the_merged_work(flow: Any) -> None:
    ticket = await ticket_of(flow)
    write = await task_of(flow, ticket, "write")
    read = await task_of(flow, ticket, "read", write["id"])
    target = f"ticket/{ticket['id']}"
    (claimed,) = await flow.claim()
    assert (claimed.task_id, claimed.base_branch) == (write["id"], target)
    await flow.complete(claimed, SHA)
    assert await merge_state(flow, write["id"]) == "pending"
    reasons = (await flow.call("GET", f"/tasks/{read['id']}/readiness"))["reasons"]
    assert [one["code"] for one in reasons] == ["dependency_not_merged"]
    assert await flow.claim() == []
    assert (await flow.call("GET", f"/tickets/{ticket['id']}"))["status"] != "done"
    await flow.job("run-merges")()
    (asked,) = flow.vcs.merges
    assert (asked.target_branch, asked.spec_id) == (target, "")
    assert [(item.task_id, item.head_sha) for item in asked.items] == [(write["id"], SHA)]
    await flow.merge_all()
    assert await merge_state(flow, write["id"]) == "merged"
    (after,) = await flow.claim()
    assert (after.task_id, after.base_branch) == (read["id"], target)
    await flow.complete(after)
    assert await merge_state(flow, read["id"]) == "none"


async def test_branches_of_two_tickets_are_merged_side_by_side(flow: Any) -> None:
    tickets = [await ticket_of(flow) for _ in range(2)]
    for ticket in tickets:
        await task_of(flow, ticket, "work")
    for claimed in await flow.claim():
        await flow.complete(claimed, SHA)
    await flow.job("run-merges")()
    assert {one.target_branch for one in flow.vcs.merges} == {f"ticket/{one['id']}" for one in tickets}
    # One branch after another of a ticket, as a lost hint leaves it: found by the job.
    third = await task_of(flow, tickets[0], "more")
    (claimed,) = await flow.claim()
    await flow.complete(claimed, "b" * 40)
    assert len(flow.vcs.merges) == 2, "one merge into a branch at a time"
    await flow.merge_all()
    assert await merge_state(flow, third["id"]) == "merged"


async def test_where_there_is_no_repository_nothing_waits_for_a_merge(flow: Any) -> None:
    """A sandbox of the older protocol reports the head of a repository of its own."""
    ticket = await ticket_of(flow, None)
    task = await task_of(flow, ticket, "work")
    waiting = await task_of(flow, ticket, "after", task["id"])
    (claimed,) = await flow.claim()
    await flow.complete(claimed, SHA)
    assert await merge_state(flow, task["id"]) == "none"
    assert [one.task_id for one in await flow.claim()] == [waiting["id"]]


async def test_a_queueing_that_was_missed_is_repaired(flow: Any) -> None:
    ticket = await ticket_of(flow)
    task = await task_of(flow, ticket, "work")
    (claimed,) = await flow.claim()
    await flow.complete(claimed, SHA)
    await flow.sql("DELETE FROM merges")
    await flow.sql("UPDATE tasks SET merge_id = NULL WHERE id = $1", task["id"])
    assert await flow.job("repair-merges")() == 1
    await flow.merge_all()
    assert await merge_state(flow, task["id"]) == "merged"


async def test_a_conflict_becomes_a_task_of_the_ticket(flow: Any) -> None:
    ticket = await ticket_of(flow)
    task = await task_of(flow, ticket, "work")
    waiting = await task_of(flow, ticket, "after", task["id"])
    (claimed,) = await flow.claim()
    await flow.complete(claimed, SHA)
    await flow.job("run-merges")()
    asked = flow.vcs.merges.pop()
    conflict = vcs_events.BranchConflicted(merge_id=asked.merge_id, task_id=task["id"], conflicting_files=["a.txt"])
    await flow.deliver(conflict, times=2)
    await flow.deliver(vcs_events.MergeFinished(merge_id=asked.merge_id, conflicted_task_ids=[task["id"]]), times=2)
    (resolution,) = await flow.claim()
    assert (resolution.task_type, resolution.ticket_id) == ("resolve_conflict", ticket["id"])
    assert resolution.base_branch == f"ticket/{ticket['id']}"
    await flow.complete(resolution, "c" * 40)
    await flow.merge_all()
    assert await merge_state(flow, task["id"]) == "merged"
    assert [one.task_id for one in await flow.claim()] == [waiting["id"]]


async def test_a_branch_that_could_not_be_merged_is_tried_again_by_hand(flow: Any) -> None:
    ticket = await ticket_of(flow)
    task = await task_of(flow, ticket, "work")
    waiting = await task_of(flow, ticket, "after", task["id"])
    (claimed,) = await flow.claim()
    await flow.complete(claimed, SHA)
    for _ in range(3):
        await flow.job("run-merges")()
        asked = flow.vcs.merges.pop()
        failed = vcs_events.MergeFinished(merge_id=asked.merge_id, failed_task_ids=[task["id"]], error="no disk")
        await flow.deliver(failed, times=2)
    found = await flow.call("GET", f"/tasks/{task['id']}")
    assert (found["merge_state"], found["error_message"]) == ("failed", "no disk")
    reasons = (await flow.call("GET", f"/tasks/{waiting['id']}/readiness"))["reasons"]
    assert "dependency_failed" in [one["code"] for one in reasons]
    await flow.call("POST", f"/tasks/{task['id']}/retry")
    await flow.merge_all()
    assert await merge_state(flow, task["id"]) == "merged"
    assert [one.task_id for one in await flow.claim()] == [waiting["id"]]
    assert (await flow.call("POST", f"/tasks/{task['id']}/retry", 409))["code"] == "workflow.task_not_retryable"


PLAN = "# One\n## Tasks\n### A: a\n- Command: true\n"


@pytest.mark.parametrize("executing", [True, False])
async def test_what_is_added_to_the_ticket_of_a_spec_is_merged_into_its_branch(flow: Any, executing: bool) -> None:
    project = await autonomous(flow)
    spec = await flow.spec(project["id"], PLAN)
    await flow.call("POST", f"/specs/{spec['id']}/execute")
    (own,) = await flow.claim()
    if not executing:
        await flow.complete(own)
    added = await task_of(flow, {"id": own.ticket_id}, "added")
    (claimed,) = await flow.claim()
    assert (claimed.task_id, claimed.base_branch) == (added["id"], spec["target_branch"])
    await flow.complete(claimed, SHA)
    if executing:
        await flow.complete(own, "b" * 40)
    await flow.merge_all()
    assert await merge_state(flow, added["id"]) == "merged"
    assert await merge_state(flow, own.task_id) == ("merged" if executing else "none")


async def test_a_completion_tells_what_waits_for_no_task_any_more(flow: Any) -> None:
    ticket = await ticket_of(flow)
    first, second = await task_of(flow, ticket, "first"), await task_of(flow, ticket, "second")
    both = await task_of(flow, ticket, "both", first["id"], second["id"])
    one = await task_of(flow, ticket, "one", first["id"])
    by_id = {task.task_id: task for task in await flow.claim()}
    assert by_id.keys() == {first["id"], second["id"]}
    assert await flow.unblocked(by_id[first["id"]]) == [one["id"]]
    assert await flow.unblocked(by_id[second["id"]]) == [both["id"]]
    assert await flow.unblocked(by_id[second["id"]]) == [both["id"]], "told again it is answered alike"


async def test_work_that_is_to_be_merged_lets_nothing_go_yet(flow: Any) -> None:
    ticket = await ticket_of(flow)
    first = await task_of(flow, ticket, "first")
    await task_of(flow, ticket, "after", first["id"])
    (claimed,) = await flow.claim()
    assert await flow.unblocked(claimed, SHA) == []


async def test_a_claim_names_the_branches_that_hold_the_work_of_other_tickets(flow: Any) -> None:
    one = await ticket_of(flow)
    other = await flow.call("POST", "/tickets", json={"title": "Two", "project_id": one["project_id"]})
    (first,) = await flow.claim()
    await flow.complete(first)
    write = await task_of(flow, one, "write")
    (claimed,) = await flow.claim()
    assert list(claimed.dependency_branches) == []
    await flow.complete(claimed, SHA)
    beside = await task_of(flow, other, "beside", first.task_id)
    (claimed,) = await flow.claim()
    assert (claimed.task_id, list(claimed.dependency_branches)) == (beside["id"], []), "its own branch is no other"
    await flow.complete(claimed)
    await task_of(flow, other, "read", write["id"], beside["id"])
    await flow.job("run-merges")()
    await flow.merge_all()
    (claimed,) = await flow.claim()
    assert claimed.base_branch == f"ticket/{other['id']}"
    assert list(claimed.dependency_branches) == [f"ticket/{one['id']}"]
