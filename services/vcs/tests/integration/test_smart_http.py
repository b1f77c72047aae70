"""What git sends and what it may hold, beyond the plain case."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest
from starlette.types import Message

from omoios.vcs.v1 import vcs_pb2 as pb

from .conftest import Vcs, commit, git, with_token


def packed(work: Path, base: str, head: str) -> bytes:
    """The pack of the commits since `base`."""
    command = ["git", "-c", "safe.directory=*", "pack-objects", "--quiet", "--revs", "--stdout"]
    revisions = f"{head}\n^{base}\n".encode()
    return subprocess.run(command, cwd=work, input=revisions, capture_output=True, timeout=60, check=True).stdout


async def test_a_push_is_answered_when_all_of_it_is_read(vcs: Vcs) -> None:
    project = await vcs.project()
    branch, token = await vcs.branch(project, "task-1")
    work = await asyncio.to_thread(vcs.clone, project, token, branch.branch, "work")
    base = git("rev-parse", "HEAD", cwd=work)
    head = commit(work, {"new.txt": "new\n"}, "New")
    pack = await asyncio.to_thread(packed, work, base, head)
    line = f"{base} {head} refs/heads/{branch.branch}\0report-status\n".encode()
    parts = [f"{len(line) + 4:04x}".encode() + line + b"0000", pack[:20], pack[20:]]
    seen: list[str] = []
    answer = b""

    async def receive() -> Message:
        seen.append("part")
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        nonlocal answer
        seen.append("answer")
        answer += message.get("body", b"")

    credentials = base64.b64encode(f"sandbox:{token}".encode())
    path = f"/api/v1/git/{project}.git/git-receive-pack"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", b"Basic " + credentials), (b"transfer-encoding", b"chunked")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await vcs.running.app(scope, receive, send)
    assert b"unpack ok" in answer
    # A proxy in between drops what is left of the push as soon as it has an answer to pass on.
    assert seen[:4] == ["part", "part", "part", "answer"]


@pytest.mark.parametrize(
    ("message", "date"),
    [("odd \x1e and \x1f\x1f\x1f\x1f\x1f in it", "1700000000 +0000"), ("later", "@999999999999 +0000")],
    ids=["control characters", "a date that no calendar has"],
)
async def test_whatever_git_takes_as_a_commit_is_linked(vcs: Vcs, message: str, date: str) -> None:
    project = await vcs.project()
    ticket = await vcs.ticket(project)
    branch, token = await vcs.branch(project, "task-1", ticket_id=ticket)

    def push() -> str:
        work = vcs.clone(project, token, branch.branch, "work")
        head = commit(work, {"new.txt": "new\n"}, message, GIT_COMMITTER_DATE=date)
        git("push", "-q", "origin", "HEAD", cwd=work, **with_token(token))
        return head

    head = await asyncio.to_thread(push)
    request = pb.FinishBranchRequest(project_id=project, task_id="task-1", attempt=1, head_sha=head)
    assert (await vcs.call("FinishBranch", request, "agents")).commits == 1
    linked = (await vcs.http.get(f"/api/v1/commits/{head}", headers=await vcs.user())).json()
    assert (linked["commit_message"], linked["files_changed"], linked["insertions"]) == (message, 1, 1)
