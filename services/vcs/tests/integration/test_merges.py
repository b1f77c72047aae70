"""Merging finished branches in the order asked for."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

import grpc
import pytest

from omoios.vcs.v1 import vcs_pb2 as pb
from servicekit.rpc.wire import from_rpc_error
from vcs_service.merging import rules
from vcs_service.merging.adapters import Merger
from vcs_service.mirror import leases_service as leases

from .conftest import ORGANIZATION, Vcs, commit, git, with_token

TARGET = "omoios/spec"


def item(task_id: str, head: str, attempt: int = 1) -> pb.MergeItem:
    return pb.MergeItem(
        task_id=task_id,
        ticket_id="ticket-1",
        branch=f"omoios-tasks/{task_id}/{attempt}",
        head_sha=head,
        attempt=attempt,
    )


async def merge(vcs: Vcs, project: str, *items: pb.MergeItem, merge_id: str = "merge-1", run: bool = True) -> Any:
    request = pb.StartMergeRequest(
        merge_id=merge_id,
        project_id=project,
        organization_id=ORGANIZATION,
        spec_id="spec-1",
        target_branch=TARGET,
        items=items,
    )
    answer = await vcs.call("StartMerge", request, "workflow")
    assert answer.merge_id == merge_id
    if run:
        await vcs.job("run-merges")
    merges = await vcs.call("BatchGetMerges", pb.BatchGetMergesRequest(merge_ids=[merge_id]), "workflow")
    return merges.merges[0]


def mirror_of(vcs: Vcs, project: str) -> Any:
    return vcs.folder / "data" / "mirrors" / f"{project}.git"


async def subjects(vcs: Vcs) -> list[str]:
    async with vcs.running.service.db.reader() as tx:
        rows = await (await tx.connection()).fetch(
            "SELECT subject FROM outbox WHERE subject LIKE 'vcs.branch.merged%' OR subject LIKE 'vcs.branch.conf%'"
            " OR subject LIKE 'vcs.merge%' ORDER BY seq"
        )
    return [row["subject"] for row in rows]


class TestMerge:
    async def test_branches_are_merged_in_order_and_each_is_a_parent(self, vcs: Vcs) -> None:
        project = await vcs.project()
        first = await vcs.work(project, "task-1", {"one.txt": "1\n"})
        second = await vcs.work(project, "task-2", {"two.txt": "2\n"})
        done = await merge(vcs, project, item("task-1", first), item("task-2", second))
        assert done.state == pb.MERGE_STATE_FINISHED
        assert [outcome.outcome for outcome in done.outcomes] == ["merged", "merged"]
        mirror = mirror_of(vcs, project)
        assert git("rev-parse", TARGET, cwd=mirror) == done.target_sha
        names = git("ls-tree", "-r", "--name-only", TARGET, cwd=mirror).split()
        assert {"one.txt", "two.txt"} <= set(names)
        parents = git("log", "--first-parent", "--format=%P", "-2", TARGET, cwd=mirror).splitlines()
        assert parents[0].split()[1] == second
        assert parents[1].split()[1] == first
        assert "OmoiOS-Task: task-2" in git("log", "-1", "--format=%B", TARGET, cwd=mirror)
        assert await subjects(vcs) == ["vcs.branch.merged.v1", "vcs.branch.merged.v1", "vcs.merge.finished.v1"]

    async def test_a_conflict_stops_that_branch_only(self, vcs: Vcs) -> None:
        project = await vcs.project()
        heads = {
            "task-1": await vcs.work(project, "task-1", {"README.md": "ours\n"}),
            "task-2": await vcs.work(project, "task-2", {"README.md": "theirs\n"}),
            "task-3": await vcs.work(project, "task-3", {"three.txt": "3\n"}),
        }
        done = await merge(vcs, project, *(item(task, head) for task, head in heads.items()))
        assert [outcome.outcome for outcome in done.outcomes] == ["merged", "conflicted", "merged"]
        assert list(done.outcomes[1].conflicting_files) == ["README.md"]
        mirror = mirror_of(vcs, project)
        assert git("show", f"{TARGET}:README.md", cwd=mirror) == "ours"
        assert git("show", f"{TARGET}:three.txt", cwd=mirror) == "3"
        assert (await subjects(vcs)).count("vcs.branch.conflicted.v1") == 1
        assert 'vcs_merge_duration_seconds_count{outcome="conflicted"}' in (await vcs.http.get("/metrics")).text

    async def test_an_unknown_commit_fails_alone(self, vcs: Vcs) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-2", {"two.txt": "2\n"})
        broken = item("task-4", head)
        broken.branch = "../main"
        done = await merge(vcs, project, item("task-1", "1" * 40), item("task-3", "HEAD"), item("task-2", head), broken)
        assert [outcome.outcome for outcome in done.outcomes] == ["failed", "failed", "merged", "failed"]
        assert "not a full commit id" in done.outcomes[1].error

    async def test_a_merge_that_nobody_foresaw_to_fail_ends(self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-1", {"one.txt": "1\n"})

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(Merger, "merge", broken)
        done = await merge(vcs, project, item("task-1", head))
        assert done.state == pb.MERGE_STATE_QUEUED
        for _ in range(rules.MAX_TRIES):
            async with vcs.running.service.db.uow() as tx:
                await (await tx.connection()).execute("UPDATE merges SET lease_until = now()")
            await vcs.job("run-merges")
        ended = await vcs.call("BatchGetMerges", pb.BatchGetMergesRequest(merge_ids=["merge-1"]), "workflow")
        assert ended.merges[0].state == pb.MERGE_STATE_FAILED
        assert [outcome.outcome for outcome in ended.merges[0].outcomes] == ["failed"]
        assert await subjects(vcs) == ["vcs.merge.finished.v1"]

    async def test_nothing_new_is_merged_as_empty(self, vcs: Vcs) -> None:
        project = await vcs.project()
        branch, _ = await vcs.branch(project, "task-1")
        done = await merge(vcs, project, item("task-1", branch.base_sha))
        assert [outcome.outcome for outcome in done.outcomes] == ["empty"]
        assert done.target_sha == branch.base_sha

    async def test_the_same_merge_twice_is_one(self, vcs: Vcs) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-1", {"one.txt": "1\n"})
        once = await merge(vcs, project, item("task-1", head))
        twice = await merge(vcs, project, item("task-1", head))
        assert once == twice
        assert len(await subjects(vcs)) == 2
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await merge(vcs, project, item("task-2", head))
        assert other.value.code() is grpc.StatusCode.ABORTED
        assert from_rpc_error(other.value, "vcs").code == "vcs.merge_is_another"

    async def test_a_crash_after_the_ref_moved_has_one_effect(self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-1", {"one.txt": "1\n"})
        whole = Merger.merge

        async def crash(self: Merger, *arguments: Any) -> Any:
            await whole(self, *arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(Merger, "merge", crash)
        with pytest.raises(KeyboardInterrupt):
            await merge(vcs, project, item("task-1", head))
        monkeypatch.undo()
        mirror = mirror_of(vcs, project)
        stands = git("rev-parse", TARGET, cwd=mirror)
        async with vcs.running.service.db.uow() as tx:
            await (await tx.connection()).execute("UPDATE merges SET lease_until = now()")
        done = await merge(vcs, project, item("task-1", head))
        assert done.state == pb.MERGE_STATE_FINISHED
        assert git("rev-parse", TARGET, cwd=mirror) == stands
        assert await subjects(vcs) == ["vcs.branch.merged.v1", "vcs.merge.finished.v1"]

    async def test_a_killed_worker_is_followed_soon_and_a_slow_one_is_left_alone(
        self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-1", {"one.txt": "1\n"})
        await merge(vcs, project, item("task-1", head), run=False)
        monkeypatch.setattr(leases, "LEASE", timedelta(seconds=1))
        begun = asyncio.Event()

        async def endless(self: Merger, *arguments: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(Merger, "merge", endless)
            slow = asyncio.create_task(vcs.job("run-merges"))
            await asyncio.wait_for(begun.wait(), 20)
            begun.clear()
            await asyncio.sleep(2.5)
            await vcs.job("run-merges")
            assert not begun.is_set(), "another instance took a merge whose worker lives"
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
        async with asyncio.timeout(20):
            while "vcs.merge.finished.v1" not in await subjects(vcs):
                await vcs.job("run-merges")
                await asyncio.sleep(0.1)
        assert await subjects(vcs) == ["vcs.branch.merged.v1", "vcs.merge.finished.v1"]

    async def test_a_lock_that_a_dead_git_left_stops_no_merge(self, vcs: Vcs) -> None:
        project = await vcs.project()
        first = await merge(vcs, project, item("task-1", await vcs.work(project, "task-1", {"one.txt": "1\n"})))
        assert first.state == pb.MERGE_STATE_FINISHED
        lock = mirror_of(vcs, project) / "refs/heads" / f"{TARGET}.lock"
        await asyncio.to_thread(lock.touch)
        head = await vcs.work(project, "task-2", {"two.txt": "2\n"})
        held = await merge(vcs, project, item("task-2", head), merge_id="merge-2")
        assert held.state == pb.MERGE_STATE_QUEUED, "a lock that is held is respected, and the merge waits for it"
        assert await asyncio.to_thread(lock.exists)
        old = time.time() - 600
        await asyncio.to_thread(os.utime, lock, (old, old))
        async with asyncio.timeout(30):
            while "vcs.merge.finished.v1" not in (await subjects(vcs))[2:]:
                await asyncio.sleep(0.2)
                await vcs.job("run-merges")
        assert await subjects(vcs) == ["vcs.branch.merged.v1", "vcs.merge.finished.v1"] * 2

    async def test_two_instances_carry_a_merge_out_once(self, vcs: Vcs) -> None:
        project = await vcs.project()
        heads = [await vcs.work(project, f"task-{n}", {f"{n}.txt": "x\n"}) for n in range(3)]
        items = [item(f"task-{n}", head) for n, head in enumerate(heads)]
        await merge(vcs, project, *items, run=False)
        await asyncio.gather(*(vcs.job("run-merges") for _ in range(4)))
        assert (await subjects(vcs)).count("vcs.branch.merged.v1") == 3
        assert (await subjects(vcs)).count("vcs.merge.finished.v1") == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"target_branch": "../main"},
            {"target_branch": ""},
            {"items": []},
            {"items": [item("", "1" * 40)]},
            {"items": [item("task-1", "1" * 40), item("task-1", "1" * 40)]},
        ],
    )
    async def test_bad_requests_are_refused(self, vcs: Vcs, change: dict[str, Any]) -> None:
        project = await vcs.project()
        values = {"target_branch": TARGET, "items": [item("task-1", "1" * 40)]} | change
        request = pb.StartMergeRequest(merge_id="m", project_id=project, organization_id=ORGANIZATION, **values)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await vcs.call("StartMerge", request, "workflow")
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_branch_whose_worker_did_not_finish_it_is_finished_before_its_merge(vcs: Vcs) -> None:
    project = await vcs.project()
    ticket = await vcs.ticket(project)

    async def pushed(task_id: str) -> str:
        branch, token = await vcs.branch(project, task_id, base=TARGET, ticket_id=ticket)

        def push() -> str:
            clone = vcs.clone(project, token, branch.branch, task_id)
            head = commit(clone, {f"{task_id}.txt": "x\n"}, f"Work on {task_id}")
            git("push", "-q", "origin", "HEAD", cwd=clone, **with_token(token))
            return head

        return await asyncio.to_thread(push)

    told, silent = await pushed("told"), await pushed("silent")
    wrong = await pushed("wrong")
    await vcs.branch(project, "nothing", base=TARGET, ticket_id=ticket)
    items = [item("told", told), item("silent", ""), item("wrong", told), item("nothing", ""), item("unknown", "")]
    done = await merge(vcs, project, *items)
    outcomes = {one.task_id: one.outcome for one in done.outcomes}
    assert outcomes == {
        "told": "merged", "silent": "merged", "wrong": "failed", "nothing": "empty", "unknown": "empty",
    }  # fmt: skip
    (refused,) = [one for one in done.outcomes if one.outcome == "failed"]
    assert wrong in refused.error
    answer = await vcs.http.get(f"/api/v1/commits/ticket/{ticket}", headers=await vcs.user())
    assert {one["commit_sha"] for one in answer.json()["commits"]} == {told, silent}
