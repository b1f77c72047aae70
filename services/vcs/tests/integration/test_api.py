"""`/commits` and `/branch-workflow` through HTTP, and the replica of tickets."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from typing import Any

import pytest
from sqlalchemy import select, text

from omoios.vcs.v1 import vcs_pb2 as pb
from omoios.workflow.v1 import workflow_pb2
from servicekit.events import Event
from servicekit.ids import new_id
from servicekit.testing.problems import assert_problem
from vcs_service import replica
from vcs_service.mirror import ticket_branches_service as ticket_branches

from .conftest import ORGANIZATION, Vcs, commit, git, ticket_created, with_token

COMMITS = "/api/v1/commits"
BRANCHES = "/api/v1/branch-workflow"


class TestCommits:
    async def test_a_finished_branch_links_its_commits(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        head = await vcs.work(project, "task-1", {"new.txt": "a\nb\n"}, ticket_id=ticket)
        viewer = await vcs.user("viewer")
        page = (await vcs.http.get(f"{COMMITS}/ticket/{ticket}", headers=viewer)).json()
        assert page["total"] == 1
        commit = page["commits"][0]
        assert commit["commit_sha"] == head
        assert commit["agent_id"] == "agent-1"
        assert commit["insertions"] == 2
        assert commit["link_method"] == "branch"
        short = await vcs.http.get(f"{COMMITS}/{head[:8]}", headers=viewer)
        assert short.json() == commit
        diff = (await vcs.http.get(f"{COMMITS}/{head}/diff", headers=viewer)).json()
        assert diff["files"][0]["path"] == "new.txt"
        assert diff["files"][0]["status"] == "added"
        assert "+a\n+b" in diff["files"][0]["patch"]
        none = (await vcs.http.get(f"{COMMITS}/{head}/diff", params={"file_path": "x"}, headers=viewer)).json()
        assert none["files"] == []
        agent = (await vcs.http.get(f"{COMMITS}/agent/agent-1", headers=viewer)).json()
        assert agent["total"] == 1
        counts = await vcs.call("BatchCountCommits", pb.BatchCountCommitsRequest(project_ids=[project]), "workflow")
        assert counts.counts[0].commits == 1

    async def test_a_sandbox_sees_the_commits_of_its_own_ticket_only(self, vcs: Vcs) -> None:
        project = await vcs.project()
        own, other = await vcs.ticket(project), await vcs.ticket(project)
        head = await vcs.work(project, "task-1", {"new.txt": "a\n"}, ticket_id=own)
        _, foreign = await vcs.branch(project, "task-2", ticket_id=other)
        _, token = await vcs.branch(project, "task-3", ticket_id=own)
        for status, shown in ((200, token), (404, foreign)):
            headers = {"Authorization": f"Bearer {shown}"}
            for path in (f"ticket/{own}", head, f"{head}/diff"):
                assert (await vcs.http.get(f"{COMMITS}/{path}", headers=headers)).status_code == status, path

    async def test_finishing_twice_links_once(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        head = await vcs.work(project, "task-1", {"new.txt": "a\n"}, ticket_id=ticket)
        request = pb.FinishBranchRequest(project_id=project, task_id="task-1", attempt=1, head_sha=head)
        again = await vcs.call("FinishBranch", request, "agents")
        assert (again.head_sha, again.commits) == (head, 1)
        page = (await vcs.http.get(f"{COMMITS}/ticket/{ticket}", headers=await vcs.user())).json()
        assert page["total"] == 1

    async def test_a_commit_is_linked_by_hand_once(self, vcs: Vcs) -> None:
        ticket = await vcs.ticket(await vcs.project())
        member, viewer = await vcs.user("member"), await vcs.user("viewer")
        body = {
            "commit_sha": "a" * 40,
            "agent_id": "agent-7",
            "commit_message": "By hand",
            "files_list": {"x.py": {"status": "modified", "additions": 3, "deletions": 1, "patch": "@@"}},
        }
        path = f"{COMMITS}/ticket/{ticket}/link"
        assert_problem(await vcs.http.post(path, json=body, headers=viewer), 403, "auth.forbidden")
        linked = await vcs.http.post(path, json=body, headers=member)
        assert linked.status_code == 200
        assert linked.json()["link_method"] == "manual"
        assert_problem(await vcs.http.post(path, json=body, headers=member), 409, "vcs.commit_already_linked")
        diff = (await vcs.http.get(f"{COMMITS}/{'a' * 40}/diff", headers=viewer)).json()
        assert diff["files"] == [
            {"path": "x.py", "additions": 3, "deletions": 1, "changes": 4, "status": "modified", "patch": "@@"}
        ]

    async def test_what_the_mirror_knows_of_a_commit_is_read_there(self, vcs: Vcs) -> None:
        old = commit(vcs.origin, {"old.txt": "one\ntwo\n"}, "Old", GIT_COMMITTER_DATE="2020-02-02T02:02:02Z")
        ticket = await vcs.ticket(await vcs.project())
        member = await vcs.user("member")
        path = f"{COMMITS}/ticket/{ticket}/link"
        linked = (await vcs.http.post(path, json={"commit_sha": old, "agent_id": "a"}, headers=member)).json()
        assert linked["commit_timestamp"].startswith("2020-02-02T02:02:02")
        assert (linked["commit_message"], linked["insertions"], linked["files_changed"]) == ("Old", 2, 1)

    async def test_a_long_branch_is_linked_whole(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        branch, token = await vcs.branch(project, "task-1", ticket_id=ticket)

        def push() -> str:
            clone = vcs.clone(project, token, branch.branch, "long")
            tree, head = git("rev-parse", "HEAD^{tree}", cwd=clone), git("rev-parse", "HEAD", cwd=clone)
            # 1,100 empty commits by one process.
            stream = "".join(
                f"commit refs/heads/long\ncommitter A <a@b> {1_600_000_000 + number} +0000\ndata 1\nx\n"
                + (f"from {head}\n" if number == 0 else "")
                for number in range(1_100)
            )
            subprocess.run(["git", "fast-import", "--quiet"], input=stream.encode(), cwd=clone, check=True)
            assert git("rev-parse", "long^{tree}", cwd=clone) == tree
            git("push", "-q", "origin", f"long:{branch.branch}", cwd=clone, **with_token(token))
            return git("rev-parse", "long", cwd=clone)

        head = await asyncio.to_thread(push)
        request = pb.FinishBranchRequest(project_id=project, task_id="task-1", attempt=1, head_sha=head)
        assert (await vcs.call("FinishBranch", request, "agents")).commits == 1_100
        page = (await vcs.http.get(f"{COMMITS}/ticket/{ticket}", headers=await vcs.user())).json()
        assert page["total"] == 1_100

    async def test_of_a_huge_patch_the_beginning_is_told(self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        head = await vcs.work(project, "task-1", {"a.txt": "a\n", "b.txt": "b\n" * 50_000}, ticket_id=ticket)
        monkeypatch.setattr("vcs_service.mirror.adapters.MAX_OUTPUT", 65_536)
        files = (await vcs.http.get(f"{COMMITS}/{head}/diff", headers=await vcs.user())).json()["files"]
        assert [(one["path"], one["additions"]) for one in files] == [("a.txt", 1), ("b.txt", 50_000)]
        assert files[0]["patch"]
        assert 0 < len(files[1]["patch"]) <= 65_536

    async def test_others_see_nothing_and_bad_input_is_named(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        head = await vcs.work(project, "task-1", {"new.txt": "a\n"}, ticket_id=ticket)
        eve = await vcs.user("owner", "org-2")
        link = {"commit_sha": "b" * 40, "agent_id": "a"}
        for method, path, body in (
            ("GET", f"{COMMITS}/{head}", None),
            ("GET", f"{COMMITS}/{head}/diff", None),
            ("GET", f"{COMMITS}/ticket/{ticket}", None),
            ("POST", f"{COMMITS}/ticket/{ticket}/link", link),
        ):
            assert_problem(await vcs.http.request(method, path, json=body), 401, "auth.unauthenticated")
            foreign = await vcs.http.request(method, path, json=body, headers=eve)
            assert foreign.status_code == 404, foreign.text
        assert (await vcs.http.get(f"{COMMITS}/agent/agent-1", headers=eve)).json() == {"commits": [], "total": 0}
        ada = await vcs.user()
        assert_problem(await vcs.http.get(f"{COMMITS}/ticket/{uuid.uuid4()}", headers=ada), 404, "vcs.ticket_not_found")
        assert_problem(await vcs.http.get(f"{COMMITS}/{'c' * 40}", headers=ada), 404, "vcs.commit_not_found")
        for path in (
            f"{COMMITS}/%25%25%25%25%25%25%25",
            f"{COMMITS}/abc",
            f"{COMMITS}/ticket/x",
            f"{COMMITS}/ticket/{ticket}?limit=0",
        ):
            assert (await vcs.http.get(path, headers=ada)).status_code == 422, path
        for change in ({"commit_sha": "xyz"}, {"files_list": {"a": []}}, {"insertions": -1}, {"agent_id": ""}):
            answer = await vcs.http.post(f"{COMMITS}/ticket/{ticket}/link", json=link | change, headers=ada)
            assert answer.status_code == 422


class TestBranchWorkflow:
    async def test_a_ticket_s_branch_from_start_to_merge(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        member = await vcs.user("member")
        body = {
            "ticket_id": ticket,
            "ticket_title": "Fix: the THING (again)!",
            "ticket_type": "Bug",
            "priority": "CRITICAL",
            "repo_owner": "o",
            "repo_name": "r",
            "user_id": "someone else",
        }
        started = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=member)).json()
        assert started["success"] is True
        assert started["branch_name"] == f"hotfix/{ticket}-fix-the-thing-again"
        again = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=member)).json()
        assert again == started
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        new = git(
            "commit-tree",
            git("rev-parse", f"{started['branch_name']}^{{tree}}", cwd=mirror),
            *("-p", started["sha"], "-m", "Work"),
            cwd=mirror,
        )
        git("update-ref", f"refs/heads/{started['branch_name']}", new, cwd=mirror)
        status = (
            await vcs.http.post(
                f"{BRANCHES}/status",
                json={"branch_name": started["branch_name"], "ticket_id": ticket},
                headers=await vcs.user("viewer"),
            )
        ).json()
        assert status == {"success": True, "ahead_by": 1, "behind_by": 0, "has_conflicts": False, "error": None}
        finished = (
            await vcs.http.post(
                f"{BRANCHES}/finish",
                json={"ticket_id": ticket, "ticket_title": "x", "branch_name": started["branch_name"]},
                headers=member,
            )
        ).json()
        assert finished["success"] is True
        assert finished["head_sha"] == new
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json={"ticket_id": ticket}, headers=member)).json()
        assert merged["success"] is True
        assert merged["target_branch"] == "omoios/main"
        assert git("rev-parse", "omoios/main", cwd=mirror) == merged["merge_sha"]
        pushed = await vcs.http.post(
            f"{BRANCHES}/push", json={"project_id": project, "branch_name": "omoios/main"}, headers=member
        )
        assert pushed.status_code == 200, pushed.text
        assert git("rev-parse", "omoios/main", cwd=vcs.origin) == merged["merge_sha"]
        assert git("rev-parse", "main", cwd=vcs.origin) == started["sha"]

    async def test_a_sandbox_works_on_the_branch_of_its_task_s_ticket(self, vcs: Vcs) -> None:
        """As a worker does it: start, push, finish with the sandbox's token; a person merges."""
        project = await vcs.project()
        ticket, other = await vcs.ticket(project), await vcs.ticket(project)
        attempt, token = await vcs.branch(project, "task-1", ticket_id=ticket)
        sandbox, member = {"Authorization": f"Bearer {token}"}, await vcs.user("member")
        newest = commit(vcs.origin, {"late.txt": "pushed after the mirror's last fetch\n"}, "Late")
        body = {"ticket_id": ticket, "ticket_title": "Add a thing"}
        started = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=sandbox)).json()
        assert started["sha"] == newest, "a branch starts from the repository as it is now"
        foreign = await vcs.http.post(f"{BRANCHES}/start", json=body | {"ticket_id": other}, headers=sandbox)
        assert_problem(foreign, 404, "vcs.ticket_not_found")
        named = {"ticket_id": ticket, "ticket_title": "x", "branch_name": started["branch_name"]}

        def work(name: str) -> str:
            clone = vcs.clone(project, token, started["branch_name"], name)
            head = commit(clone, {f"{name}.txt": f"{name}\n"}, f"Write {name}")
            git("push", "-q", "origin", f"HEAD:{started['branch_name']}", cwd=clone, **with_token(token))
            for ref in ("main", "omoios/main", f"feature/{other}"):
                refused = git(
                    "push", "-q", "origin", f"HEAD:refs/heads/{ref}", cwd=clone, check=False, **with_token(token)
                )
                assert refused == ""
            return head

        head = await asyncio.to_thread(work, "one")
        finished = (await vcs.http.post(f"{BRANCHES}/finish", json=named, headers=sandbox)).json()
        assert (finished["success"], finished["head_sha"], finished["commits"]) == (True, head, 1)
        linked = (await vcs.http.get(f"{COMMITS}/ticket/{ticket}", headers=member)).json()["commits"]
        assert [one["commit_sha"] for one in linked] == [head]
        of_attempt = (
            await vcs.http.post(f"{BRANCHES}/finish", json=named | {"branch_name": attempt.branch}, headers=member)
        ).json()
        assert (of_attempt["success"], of_attempt["commits"]) == (True, 0)

        rebased = await vcs.http.post(
            f"{BRANCHES}/merge", json={"ticket_id": ticket, "merge_method": "rebase"}, headers=member
        )
        assert rebased.json()["success"] is False
        assert_problem(
            await vcs.http.post(f"{BRANCHES}/merge", json={"ticket_id": ticket}, headers=sandbox),
            403,
            "auth.forbidden",
        )
        merge = {"ticket_id": ticket}
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=member)).json()
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        parents = git("rev-list", "--parents", "--max-count=1", merged["merge_sha"], cwd=mirror).split()
        assert parents[1:] == [newest], "a squash has one parent"
        assert git("show", f"{merged['merge_sha']}:one.txt", cwd=mirror) == "one"
        assert started["branch_name"] not in git("branch", "--format=%(refname:short)", cwd=mirror).split()
        again = (await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=member)).json()
        assert again == merged
        elsewhere = merge | {"target_branch": "omoios/elsewhere"}
        other = (await vcs.http.post(f"{BRANCHES}/merge", json=elsewhere, headers=member)).json()
        assert (other["success"], other["merge_sha"]) == (False, None), "it was never merged there"

        anew = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=sandbox)).json()
        assert (anew["branch_name"], anew["sha"]) == (started["branch_name"], newest)
        second = await asyncio.to_thread(work, "two")
        kept = merge | {"merge_method": "merge", "delete_branch_after": False}
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json=kept, headers=member)).json()
        parents = git("rev-list", "--parents", "--max-count=1", merged["merge_sha"], cwd=mirror).split()
        assert parents[2:] == [second]
        assert git("rev-parse", started["branch_name"], cwd=mirror) == second
        linked = (await vcs.http.get(f"{COMMITS}/ticket/{ticket}", headers=member)).json()
        assert {one["commit_sha"] for one in linked["commits"]} == {head, second}

        _, newer = await vcs.branch(project, "task-1", attempt=2, ticket_id=ticket)
        late = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=sandbox)).json()
        assert (late["success"], late["branch_name"]) == (False, None)
        now = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers={"Authorization": f"Bearer {newer}"})).json()
        assert now["sha"] == second, "a kept branch goes on where it stands"
        status = {"branch_name": started["branch_name"], "project_id": new_id("project-")}
        foreign = await vcs.http.post(f"{BRANCHES}/status", json=status, headers=sandbox)
        assert_problem(foreign, 404, "vcs.project_not_found")

    async def test_what_the_queue_merged_of_a_ticket_goes_with_its_branch(self, vcs: Vcs) -> None:
        """The queue merges attempts into `ticket/<id>`: a branch starts there, and a merge brings both."""
        project = await vcs.project()
        ticket, member = await vcs.ticket(project), await vcs.user("member")
        merge = {"ticket_id": ticket}
        nothing = (await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=member)).json()
        assert nothing["success"] is False
        queue = f"ticket/{ticket}"
        head = await vcs.work(project, "task-1", {"one.txt": "one\n"}, base=queue, ticket_id=ticket)

        async def queued(merge_id: str, task_id: str, head: str) -> None:
            item = pb.MergeItem(
                task_id=task_id, ticket_id=ticket, branch=f"omoios-tasks/{task_id}/1", head_sha=head, attempt=1
            )
            request = pb.StartMergeRequest(
                merge_id=merge_id, project_id=project, organization_id="org-1", target_branch=queue, items=[item]
            )
            await vcs.call("StartMerge", request, "workflow")
            await vcs.job("run-merges")

        await queued("merge-1", "task-1", head)
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        assert git("show", f"{queue}:one.txt", cwd=mirror) == "one"
        # A later task of the ticket begins on the merged work.
        again, _ = await vcs.branch(project, "task-2", base=queue, ticket_id=ticket)
        assert again.base_sha == git("rev-parse", queue, cwd=mirror)
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=member)).json()
        assert merged["success"] is True, merged
        assert git("show", f"{merged['merge_sha']}:one.txt", cwd=mirror) == "one"
        assert git("rev-parse", queue, cwd=mirror) == again.base_sha, "the queue goes on with its branch"
        body = {"ticket_id": ticket, "ticket_title": "More"}
        started = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=member)).json()
        assert started["sha"] == again.base_sha
        second = await vcs.work(project, "task-3", {"two.txt": "two\n"}, base=queue, ticket_id=ticket)
        await queued("merge-2", "task-3", second)
        _, token = await vcs.branch(project, "task-4", base=queue, ticket_id=ticket)

        def work() -> None:
            clone = vcs.clone(project, token, started["branch_name"], "by-hand")
            commit(clone, {"three.txt": "three\n"}, "Three")
            git("push", "-q", "origin", f"HEAD:{started['branch_name']}", cwd=clone, **with_token(token))
            refused = git("push", "-q", "origin", f"HEAD:{queue}", cwd=clone, check=False, **with_token(token))
            assert refused == "", "only the queue moves its branch"

        await asyncio.to_thread(work)
        stood = git("rev-parse", queue, cwd=mirror)
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json=merge, headers=member)).json()
        assert merged["success"] is True, merged
        for name in ("one", "two", "three"):
            assert git("show", f"omoios/main:{name}.txt", cwd=mirror) == name
        assert git("rev-parse", queue, cwd=mirror) == stood

    async def test_a_squash_that_was_made_is_not_made_again(self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch) -> None:
        """The process ended between the branch's move and the row: the next call finds the change there."""
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        _, token = await vcs.branch(project, "task-1", ticket_id=ticket)
        member = await vcs.user("member")
        body = {"ticket_id": ticket, "ticket_title": "x"}
        branch = (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=member)).json()["branch_name"]

        def work() -> None:
            clone = vcs.clone(project, token, branch, "clone")
            commit(clone, {"a.txt": "a\n"}, "Work")
            git("push", "-q", "origin", f"HEAD:{branch}", cwd=clone, **with_token(token))

        await asyncio.to_thread(work)

        async def gone(*_: Any) -> None:
            raise RuntimeError("the process ended")

        with monkeypatch.context() as patch:
            patch.setattr(ticket_branches, "merged", gone)
            lost = await vcs.http.post(f"{BRANCHES}/merge", json={"ticket_id": ticket}, headers=member)
            assert lost.status_code == 500
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        stood = git("rev-parse", "omoios/main", cwd=mirror)
        merged = (await vcs.http.post(f"{BRANCHES}/merge", json={"ticket_id": ticket}, headers=member)).json()
        assert (merged["success"], merged["merge_sha"]) == (True, stood)

    async def test_failures_are_told_in_the_answer(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        member = await vcs.user("member")
        for path, body in (
            ("finish", {"ticket_id": ticket, "branch_name": "feature/x"}),
            ("merge", {"ticket_id": ticket}),
            ("status", {"ticket_id": ticket, "branch_name": "feature/x"}),
        ):
            answer = await vcs.http.post(f"{BRANCHES}/{path}", json=body, headers=member)
            assert answer.status_code == 200
            assert answer.json()["success"] is False
            assert answer.json()["error"]
        unbound = await vcs.ticket(new_id("project-"))
        body: dict[str, Any] = {"ticket_id": unbound, "ticket_title": "x"}
        assert (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=member)).json()["success"] is False

    async def test_a_mirror_that_is_still_coming_is_no_answer(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        async with vcs.running.service.db.uow() as tx:
            await tx.session.execute(text("UPDATE repositories SET head_sha = NULL"))
        body: dict[str, Any] = {"ticket_id": ticket, "ticket_title": "x", "branch_name": "main"}
        for path in ("start", "status"):
            answer = await vcs.http.post(f"{BRANCHES}/{path}", json=body, headers=await vcs.user())
            assert_problem(answer, 503, "vcs.repository_not_ready")
            assert answer.headers["retry-after"]

    async def test_others_are_refused(self, vcs: Vcs) -> None:
        project = await vcs.project()
        ticket = await vcs.ticket(project)
        eve, viewer = await vcs.user("owner", "org-2"), await vcs.user("viewer")
        start = {"ticket_id": ticket, "ticket_title": "x"}
        calls = [
            ("start", start),
            ("finish", {"ticket_id": ticket, "branch_name": "feature/x"}),
            ("merge", {"ticket_id": ticket}),
            ("status", {"ticket_id": ticket, "branch_name": "feature/x"}),
            ("push", {"project_id": project, "branch_name": "omoios/main"}),
        ]
        for path, body in calls:
            assert_problem(await vcs.http.post(f"{BRANCHES}/{path}", json=body), 401, "auth.unauthenticated")
            foreign = await vcs.http.post(f"{BRANCHES}/{path}", json=body, headers=eve)
            assert_problem(foreign, 404, "vcs.project_not_found" if path == "push" else "vcs.ticket_not_found")
            if path != "status":
                answer = await vcs.http.post(f"{BRANCHES}/{path}", json=body, headers=viewer)
                assert_problem(answer, 403, "auth.forbidden")
        for body in ({}, start | {"ticket_id": "x"}, start | {"ticket_title": ""}):
            assert (await vcs.http.post(f"{BRANCHES}/start", json=body, headers=viewer)).status_code == 422
        member = await vcs.user("member")
        for target in ("main", "refs/heads/main", "omoios/../main", "-f"):
            body = {"project_id": project, "branch_name": target}
            assert (await vcs.http.post(f"{BRANCHES}/push", json=body, headers=member)).status_code == 422


class TestReplica:
    async def test_a_ticket_told_twice_and_out_of_order_is_one(self, vcs: Vcs) -> None:
        ticket = new_id()
        body = ticket_created(ticket, "project-1")
        headers = {
            "Nats-Msg-Id": new_id(),
            "Omoios-Time": "2026-11-23T10:00:00Z",
            "Omoios-Aggregate-Type": "ticket",
            "Omoios-Aggregate-Id": ticket,
            "Omoios-Version": "1",
            "Omoios-Organization": ORGANIZATION,
        }
        (group,) = vcs.running.service.consumers
        for _ in range(3):
            event: Event[Any] = Event(headers, "workflow.ticket.created.v1", body.SerializeToString())
            async with vcs.running.service.db.uow() as tx:
                await group.sources["workflow"].handlers[event.type](tx, [event])
        found = await ticket_row(vcs, ticket)
        assert (found.project_id, found.organization_id) == ("project-1", ORGANIZATION)

    async def test_a_ticket_that_was_not_told_is_asked_for_once(self, vcs: Vcs) -> None:
        ticket, member = new_id(), await vcs.user("member")
        vcs.workflow.tickets[ticket] = owned(ticket)
        path = f"{COMMITS}/ticket/{ticket}"
        for _ in range(2):
            assert (await vcs.http.get(path, headers=member)).json() == {"commits": [], "total": 0}
        assert vcs.workflow.asked == [ticket]
        foreign = await vcs.http.get(path, headers=await vcs.user("owner", "org-2"))
        assert_problem(foreign, 404, "vcs.ticket_not_found")
        nobody_s = await vcs.http.get(f"{COMMITS}/ticket/{new_id()}", headers=member)
        assert_problem(nobody_s, 404, "vcs.ticket_not_found")

    async def test_the_replica_is_rebuilt_from_its_owner(self, vcs: Vcs) -> None:
        tickets = [new_id() for _ in range(5)]
        vcs.workflow.tickets = {one: owned(one, f"Title {number}") for number, one in enumerate(tickets)}
        (source,) = vcs.running.service.replicas
        for _ in range(2):
            assert await source.rebuild() == 5
        found = [await ticket_row(vcs, one) for one in tickets]
        assert [(one.title, one.organization_id) for one in found] == [(f"Title {n}", ORGANIZATION) for n in range(5)]


def owned(ticket_id: str, title: str = "A ticket") -> workflow_pb2.Ticket:
    """A ticket as workflow has it."""
    return workflow_pb2.Ticket(id=ticket_id, organization_id=ORGANIZATION, project_id="project-1", title=title)


async def ticket_row(vcs: Vcs, ticket_id: str) -> replica.ReplicaTicket:
    """The row of a ticket in the replica."""
    async with vcs.running.service.db.reader() as tx:
        query = select(replica.ReplicaTicket).where(replica.ReplicaTicket.ticket_id == ticket_id)
        return (await tx.session.execute(query)).scalar_one()
