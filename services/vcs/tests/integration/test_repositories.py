"""Binding, mirroring, and git over smart HTTP."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from omoios.vcs.v1 import vcs_pb2 as pb
from servicekit.errors import AppError, Kind
from servicekit.ids import new_id
from servicekit.rpc.wire import from_rpc_error
from vcs_service.mirror import leases_service as leases
from vcs_service.mirror.adapters import Git, closed_environment
from vcs_service.mirror.repository_adapters import Mirrors
from vcs_service.mirror.rules import parse_source

from .conftest import ORGANIZATION, Vcs, commit, git, with_token


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    code: grpc.StatusCode = error.value.code()
    return code


async def reason_of(call: Any) -> str:
    """The code of the error that a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return from_rpc_error(error.value, "vcs").code


class TestMirror:
    async def test_a_bound_repository_becomes_ready(self, vcs: Vcs) -> None:
        project = await vcs.project()
        repository = await vcs.repository(project)
        assert repository.state == pb.REPOSITORY_STATE_READY
        assert repository.default_branch == "main"
        assert repository.head_sha == git("rev-parse", "main", cwd=vcs.origin)

    async def test_binding_again_changes_nothing_and_another_url_starts_anew(self, vcs: Vcs, tmp_path: Path) -> None:
        project = await vcs.project()
        first = await vcs.repository(project)
        request = pb.BindRepositoryRequest(project_id=project, organization_id=ORGANIZATION, url=str(vcs.origin))
        assert (await vcs.call("BindRepository", request, "workflow")).repository.version == first.version
        other = tmp_path / "second"
        git("clone", "-q", str(vcs.origin), str(other), cwd=tmp_path)
        request.url = str(other)
        again = await vcs.call("BindRepository", request, "workflow")
        assert again.repository.state == pb.REPOSITORY_STATE_MIRRORING
        foreign = pb.BindRepositoryRequest(project_id=project, organization_id="org-2", url=str(vcs.origin))
        assert await code_of(vcs.call("BindRepository", foreign, "workflow")) is grpc.StatusCode.NOT_FOUND

    async def test_bound_anew_its_versions_go_on_above_the_old_ones(self, vcs: Vcs) -> None:
        project = await vcs.project()
        first = await vcs.repository(project)
        await vcs.call("UnbindRepository", pb.UnbindRepositoryRequest(project_id=project), "workflow")
        request = pb.BindRepositoryRequest(project_id=project, organization_id=ORGANIZATION, url=str(vcs.origin))
        again = (await vcs.call("BindRepository", request, "workflow")).repository
        assert again.version > first.version

    async def test_a_killed_fetch_is_begun_anew_soon_and_a_slow_one_is_left_alone(
        self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project = new_id("project-")
        bind = pb.BindRepositoryRequest(project_id=project, organization_id=ORGANIZATION, url=str(vcs.origin))
        await vcs.call("BindRepository", bind, "workflow")
        monkeypatch.setattr(leases, "LEASE", timedelta(seconds=1))
        begun = asyncio.Event()

        async def endless(self: Mirrors, *arguments: Any, **options: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(Mirrors, "fetch", endless)
            slow = asyncio.create_task(vcs.job("mirror-repositories"))
            await asyncio.wait_for(begun.wait(), 20)
            begun.clear()
            await asyncio.sleep(2.5)
            await vcs.job("mirror-repositories")
            assert not begun.is_set(), "another instance took a repository whose worker lives"
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
        async with asyncio.timeout(20):
            while (await vcs.repository(project)).state != pb.REPOSITORY_STATE_READY:
                await vcs.job("mirror-repositories")
                await asyncio.sleep(0.1)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/etc",
            "../origin",
            "file:///etc",
            "ext::sh -c id",
            "ssh://git@example.com/x",
            "git@example.com:x",
            "https://user:secret@example.com/x",
            "https://example.com/x?a=b",
            "--upload-pack=/bin/sh",
            "https://exa\nmple.com/x",
        ],
    )
    async def test_other_places_are_refused(self, vcs: Vcs, url: str) -> None:
        request = pb.BindRepositoryRequest(project_id="project-x", organization_id=ORGANIZATION, url=url)
        assert await code_of(vcs.call("BindRepository", request, "workflow")) is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_way_out_of_the_open_folder_is_refused(self, vcs: Vcs, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/etc")
        request = pb.BindRepositoryRequest(
            project_id="project-x", organization_id=ORGANIZATION, url=str(tmp_path / "link")
        )
        assert await code_of(vcs.call("BindRepository", request, "workflow")) is grpc.StatusCode.INVALID_ARGUMENT

    async def test_what_is_no_repository_fails_after_some_tries(self, vcs: Vcs, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        project = await vcs.project(str(tmp_path / "empty"))
        repository = await vcs.repository(project)
        assert repository.state == pb.REPOSITORY_STATE_MIRRORING
        assert repository.error
        db = vcs.running.service.db
        for _ in range(5):
            async with db.uow() as tx:
                await (await tx.connection()).execute("UPDATE repositories SET due_at = now() WHERE due_at IS NOT NULL")
            await vcs.job("mirror-repositories")
        assert (await vcs.repository(project)).state == pb.REPOSITORY_STATE_FAILED
        request = pb.ReadFileRequest(project_id=project, path="a")
        assert await reason_of(vcs.call("ReadFile", request, "workflow")) == "vcs.repository_failed"
        async with db.reader() as tx:
            subjects = await (await tx.connection()).fetch("SELECT subject FROM outbox")
        assert [row["subject"] for row in subjects] == ["vcs.repository.failed.v1"]

    async def test_hooks_and_programs_of_the_user_s_repository_do_not_run(self, vcs: Vcs, tmp_path: Path) -> None:
        witness = tmp_path / "ran"
        for hook in ("post-checkout", "post-update", "pre-receive", "reference-transaction", "fsmonitor"):
            path = vcs.origin / ".git" / "hooks" / hook
            path.write_text(f"#!/bin/sh\necho {hook} >> {witness}\n")
            path.chmod(0o755)
        git("config", "core.fsmonitor", str(vcs.origin / ".git/hooks/fsmonitor"), cwd=vcs.origin)
        project = await vcs.project()
        await vcs.branch(project, "task-1")
        asked = {"project_id": project, "branch_name": "omoios/spec"}
        pushed = await vcs.http.post("/api/v1/branch-workflow/push", json=asked, headers=await vcs.user())
        assert pushed.status_code == 200, pushed.text
        assert "omoios/spec" in git("branch", "--format=%(refname:short)", cwd=vcs.origin).split()
        assert not witness.exists()

    async def test_a_repository_of_another_user_in_an_open_folder_is_mirrored(
        self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = closed_environment() | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
        monkeypatch.setattr("vcs_service.mirror.adapters.closed_environment", lambda: other)
        repository = await vcs.repository(await vcs.project())
        assert (repository.state, repository.error) == (pb.REPOSITORY_STATE_READY, "")

    async def test_a_file_is_read_at_a_branch(self, vcs: Vcs) -> None:
        commit(vcs.origin, {"large.txt": "x" * (4 * 1024 * 1024 + 1)}, "Large")
        project = await vcs.project()
        for place, reason in (
            ({"path": "missing"}, "vcs.file_not_found"),
            ({"path": "large.txt"}, "vcs.file_too_large"),
            ({"path": "src/a.txt", "project_id": "project-0"}, "vcs.repository_not_found"),
            ({"path": "src/a.txt", "ref": "nothing"}, "vcs.repository_not_found"),
        ):
            request = pb.ReadFileRequest(**{"project_id": project} | place)
            assert await reason_of(vcs.call("ReadFile", request, "workflow")) == reason
        unknown = pb.FinishBranchRequest(project_id=project, task_id="task-0", attempt=1)
        assert await reason_of(vcs.call("FinishBranch", unknown, "agents")) == "vcs.branch_not_found"
        answer = await vcs.call("ReadFile", pb.ReadFileRequest(project_id=project, path="src/a.txt"), "workflow")
        assert answer.content == b"a\n"
        for path in ("missing", "src", "../../etc/passwd", "/etc/passwd"):
            request = pb.ReadFileRequest(project_id=project, path=path)
            assert await code_of(vcs.call("ReadFile", request, "workflow")) in (
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.ABORTED,
            )

    async def test_git_that_fails_and_hosts_that_are_none_are_told(
        self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool = Git(vcs.folder)
        with monkeypatch.context() as patch:
            patch.setattr("vcs_service.mirror.adapters.MAX_OUTPUT", 1_000)
            listing = ("rev-list", "--all", "--objects", "--format=%B %H %T %P %an %ae %ad %cn %ce %cd %N" * 10)
            with pytest.raises(AppError, match="printed more than 1000 bytes"):
                await tool.run(*listing, repository=vcs.origin / ".git")
        source = parse_source("https://127.0.0.1:9/x.git", roots=(), allow_plain_http=False)
        for call, code in (
            (tool.run("rev-parse", "--verify", "nothing", repository=vcs.origin), "vcs.git_failed"),
            (tool.run("cat-file", "--batch", stdin=b"", repository=vcs.origin, timeout_s=0), "vcs.git_timeout"),
            (tool.pin(source, public_only=True), "vcs.host_refused"),
        ):
            with pytest.raises(AppError) as raised:
                await call
            assert raised.value.code == code

    async def test_a_host_that_cannot_be_looked_up_now_is_tried_again(
        self, vcs: Vcs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_arguments: object, **_options: object) -> None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", away)
        source = parse_source("https://example.test/x.git", roots=(), allow_plain_http=False)
        with pytest.raises(AppError) as raised:
            await Git(vcs.folder).pin(source, public_only=True)
        assert (raised.value.code, raised.value.kind) == ("vcs.host_unknown", Kind.UNAVAILABLE)

    async def test_only_the_services_named_may_call(self, vcs: Vcs) -> None:
        request = pb.StartMergeRequest(merge_id="m", project_id="p")
        assert await code_of(vcs.call("StartMerge", request, "agents")) is grpc.StatusCode.PERMISSION_DENIED


class TestSmartHttp:
    async def test_an_attempt_clones_commits_and_pushes_its_branch(self, vcs: Vcs) -> None:
        project = await vcs.project()
        head = await vcs.work(project, "task-1", {"new.txt": "new\n"})
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        assert git("rev-parse", "refs/heads/omoios-tasks/task-1/1", cwd=mirror) == head
        # The user's own repository is as it was.
        assert "new.txt" not in git("ls-tree", "-r", "--name-only", "HEAD", cwd=vcs.origin)

    async def test_a_large_push_passes_through(self, vcs: Vcs) -> None:
        project = await vcs.project()
        import random

        noise = random.Random(7).randbytes(3_000_000).hex()
        await vcs.work(project, "task-1", {"large.txt": noise})

    async def test_only_the_own_branch_may_be_written(self, vcs: Vcs) -> None:
        project = await vcs.project()
        await vcs.branch(project, "task-2")
        branch, token = await vcs.branch(project, "task-1")

        def attempts() -> list[str]:
            work = vcs.clone(project, token, branch.branch, "work")
            commit(work, {"x": "x"}, "x")
            refused = []
            for refspec in (
                "HEAD:refs/heads/main",
                "HEAD:refs/heads/omoios/spec",
                "HEAD:refs/heads/omoios-tasks/task-2/1",
                "HEAD:refs/tags/v1",
                f":refs/heads/{branch.branch}",
            ):
                git("push", "-q", "origin", refspec, cwd=work, check=False, **with_token(token))
                refused.append(refspec)
            git("reset", "-q", "--hard", "HEAD~1", cwd=work)
            git("commit", "-q", "--allow-empty", "-m", "first", cwd=work)
            git("push", "-q", "origin", "HEAD", cwd=work, **with_token(token))
            git("reset", "-q", "--hard", "HEAD~1", cwd=work)
            git("commit", "-q", "--allow-empty", "-m", "rewritten", cwd=work)
            git("push", "-q", "--force", "origin", "HEAD", cwd=work, check=False, **with_token(token))
            return refused

        await asyncio.to_thread(attempts)
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        refs = git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", cwd=mirror).split()
        assert refs == [
            "refs/heads/omoios-tasks/task-1/1",
            "refs/heads/omoios-tasks/task-2/1",
            "refs/heads/omoios/spec",
        ]
        assert git("log", "-1", "--format=%s", "refs/heads/omoios-tasks/task-1/1", cwd=mirror) == "first"
        assert git("rev-parse", "omoios-tasks/task-2/1", cwd=mirror) == git("rev-parse", "main", cwd=vcs.origin)

    async def test_a_superseded_attempt_pushes_no_more(self, vcs: Vcs) -> None:
        project = await vcs.project()
        branch, old = await vcs.branch(project, "task-1", attempt=1)
        work = await asyncio.to_thread(vcs.clone, project, old, branch.branch, "late")
        commit(work, {"late.txt": "late"}, "Late")
        await vcs.branch(project, "task-1", attempt=2)
        await asyncio.to_thread(lambda: git("push", "-q", "origin", "HEAD", cwd=work, check=False, **with_token(old)))
        mirror = vcs.folder / "data" / "mirrors" / f"{project}.git"
        assert git("rev-parse", branch.branch, cwd=mirror) == branch.base_sha
        started, _ = await vcs.branch(project, "task-1", attempt=1)
        assert started.error_code == "vcs.attempt_superseded"
        request = pb.FinishBranchRequest(project_id=project, task_id="task-1", attempt=1)
        assert await code_of(vcs.call("FinishBranch", request, "agents")) is grpc.StatusCode.FAILED_PRECONDITION

    async def test_strangers_and_other_sandboxes_reach_nothing(self, vcs: Vcs) -> None:
        project = await vcs.project()
        await vcs.branch(project, "task-1")
        path = f"/api/v1/git/{project}.git/info/refs"
        asked = {"service": "git-upload-pack"}
        bare = await vcs.http.get(path, params=asked)
        assert bare.status_code == 401
        assert bare.headers["www-authenticate"].startswith("Basic")
        other_project = vcs.signing.sandbox(
            ORGANIZATION, "sandbox-9", task_id="task-9", agent_id="agent-1", project="project-other"
        )
        other_tenant = vcs.signing.sandbox("org-2", "sandbox-9", task_id="task-9", agent_id="agent-1", project=project)
        eve = (await vcs.user("owner", "org-2"))["Authorization"].removeprefix("Bearer ")
        for token in (other_project, other_tenant, eve):
            answer = await vcs.http.get(path, params=asked, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 404, answer.text
        member = await vcs.user("viewer")
        assert (await vcs.http.get(path, params=asked, headers=member)).status_code == 200
        push = {"service": "git-receive-pack"}
        owner = await vcs.user("owner")
        refused = await vcs.http.get(path, params=push, headers=owner)
        assert refused.status_code == 403
        assert refused.text.partition(":")[0] == "vcs.push_refused"
        assert (await vcs.http.get(path, headers=member)).status_code == 403
        dumb = await vcs.http.get(f"/api/v1/git/{project}.git/HEAD", headers=member)
        assert dumb.status_code == 404

    @pytest.mark.parametrize("body", [b"", b"zzzz", b"0003", b"ffff" + b"x" * 100, b"0008abcd0000", b"\x00" * 40])
    async def test_garbage_is_no_push(self, vcs: Vcs, body: bytes) -> None:
        project = await vcs.project()
        _, token = await vcs.branch(project, "task-1")
        answer = await vcs.http.post(
            f"/api/v1/git/{project}.git/git-receive-pack",
            content=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/x-git-receive-pack-request"},
        )
        assert answer.status_code == 400
        assert "vcs.malformed_push" in answer.text
