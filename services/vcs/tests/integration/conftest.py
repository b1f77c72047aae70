"""A running vcs service with real PostgreSQL, NATS and git, and repositories to mirror."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import insert

from omoios.vcs.v1 import vcs_pb2 as pb
from omoios.vcs.v1.vcs_pb2_grpc import VcsServiceStub
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.host import Running
from servicekit.ids import new_id
from servicekit.testing.hosting import HostedSigning, ServiceHosts
from vcs_service.main import build
from vcs_service.mirror.adapters import closed_environment
from vcs_service.replica import ReplicaTicket

ORGANIZATION = "org-1"


def git(*arguments: str, cwd: Path, check: bool = True, **environment: str) -> str:
    """Runs git as a person would, without this machine's configuration."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=cwd,
        env=closed_environment() | {"HOME": str(cwd)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def commit(work: Path, files: dict[str, str], message: str, **environment: str) -> str:
    """Writes files, commits them and returns the commit."""
    for name, text in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git("add", "-A", cwd=work)
    git("commit", "-q", "-m", message, cwd=work, **environment)
    return git("rev-parse", "HEAD", cwd=work)


class FakeWorkflow(workflow_pb2_grpc.WorkflowServiceServicer):
    """Tells the tickets that it was given."""

    def __init__(self) -> None:
        self.tickets: dict[str, workflow_pb2.Ticket] = {}
        self.asked: list[str] = []

    async def BatchGetTickets(self, request: Any, context: Any) -> workflow_pb2.BatchGetTicketsResponse:
        self.asked += request.ids
        found = [self.tickets[one] for one in request.ids if one in self.tickets]
        return workflow_pb2.BatchGetTicketsResponse(tickets=found)

    async def ListTicketSnapshot(self, request: Any, context: Any) -> workflow_pb2.ListTicketSnapshotResponse:
        left = sorted(one for one in self.tickets if one > request.page_token)
        page = left[:2]
        return workflow_pb2.ListTicketSnapshotResponse(
            tickets=[self.tickets[one] for one in page], next_page_token=page[-1] if len(left) > len(page) else ""
        )


@dataclass
class Vcs:
    """The running service, calls to it as the other services make them, and a repository."""

    running: Running
    signing: HostedSigning
    channel: grpc.aio.Channel
    origin: Path
    folder: Path
    workflow: FakeWorkflow

    @property
    def http(self) -> Any:
        return self.running.http

    async def call(self, method: str, request: Any, caller: str) -> Any:
        """One RPC as the named service."""
        metadata = [("authorization", f"Bearer {self.signing.service(caller)}")]
        return await getattr(VcsServiceStub(self.channel), method)(request, metadata=metadata, timeout=20)

    async def job(self, name: str) -> None:
        """Runs one of the service's jobs once."""
        await next(job for job in self.running.service.jobs if job.name == name).run()

    async def user(self, role: str = "owner", organization: str = ORGANIZATION) -> dict[str, str]:
        """The headers of a member of the organization."""
        token = await self.signing.user(new_id(), organization, role)
        return {"Authorization": f"Bearer {token}"}

    async def project(self, url: str | None = None, organization: str = ORGANIZATION) -> str:
        """A project bound to the repository and mirrored."""
        project_id = new_id("project-")
        request = pb.BindRepositoryRequest(
            project_id=project_id, organization_id=organization, url=url or str(self.origin)
        )
        await self.call("BindRepository", request, "workflow")
        await self.job("mirror-repositories")
        return project_id

    async def repository(self, project_id: str) -> Any:
        answer = await self.call(
            "BatchGetRepositories", pb.BatchGetRepositoriesRequest(project_ids=[project_id]), "workflow"
        )
        return answer.repositories[0]

    async def ticket(self, project_id: str, organization: str = ORGANIZATION) -> str:
        """A ticket that workflow's event has told of."""
        ticket_id = new_id()
        async with self.running.service.db.uow() as tx:
            await tx.session.execute(
                insert(ReplicaTicket).values(
                    ticket_id=ticket_id, organization_id=organization, project_id=project_id, title="A ticket"
                )
            )
        return ticket_id

    async def branch(
        self,
        project_id: str,
        task_id: str,
        attempt: int = 1,
        base: str = "omoios/spec",
        ticket_id: str = "ticket-1",
        dependencies: Sequence[str] = (),
    ) -> tuple[Any, str]:
        """(the started branch, the sandbox's token)."""
        sandbox = f"sandbox-{task_id}-{attempt}"
        start = pb.BranchStart(
            project_id=project_id,
            task_id=task_id,
            ticket_id=ticket_id,
            attempt=attempt,
            base_branch=base,
            sandbox_id=sandbox,
            agent_id="agent-1",
            dependency_branches=dependencies,
        )
        answer = await self.call("StartBranches", pb.StartBranchesRequest(starts=[start]), "agents")
        token = self.signing.sandbox(
            ORGANIZATION, sandbox, task_id=task_id, agent_id="agent-1", attempt=attempt, project=project_id
        )
        return answer.branches[0], token

    def clone(self, project_id: str, token: str, branch: str, name: str) -> Path:
        """A clone of the branch over smart HTTP; the token travels in the environment."""
        work = self.folder / name
        url = f"http://127.0.0.1:{self.running.http_port}/api/v1/git/{project_id}.git"
        git("clone", "-q", "--branch", branch, url, str(work), cwd=self.folder, **with_token(token))
        return work

    async def work(self, project_id: str, task_id: str, files: dict[str, str], **start: Any) -> str:
        """A whole attempt: branch, clone, commit, push, finish; returns the head."""
        branch, token = await self.branch(project_id, task_id, **start)
        attempt = start.get("attempt", 1)

        def push() -> str:
            work = self.clone(project_id, token, branch.branch, f"{task_id}-{attempt}")
            head = commit(work, files, f"Work on {task_id}")
            git("push", "-q", "origin", "HEAD", cwd=work, **with_token(token))
            return head

        head = await asyncio.to_thread(push)
        request = pb.FinishBranchRequest(project_id=project_id, task_id=task_id, attempt=attempt, head_sha=head)
        answer = await self.call("FinishBranch", request, "agents")
        assert answer.head_sha == head
        return head


def with_token(token: str) -> dict[str, str]:
    """git's environment that sends the token as the password of HTTP Basic."""
    import base64

    credentials = base64.b64encode(f"sandbox:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {credentials}",
        "GIT_ASKPASS": "/bin/false",
    }


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The user's repository: two branches and some history."""
    path = tmp_path / "origin"
    path.mkdir()
    git("init", "-q", "--initial-branch=main", cwd=path)
    commit(path, {"README.md": "one\n", "src/a.txt": "a\n"}, "First")
    commit(path, {"src/b.txt": "b\n"}, "Second")
    git("branch", "other", cwd=path)
    return path


@pytest.fixture
async def vcs(
    service_host: ServiceHosts, signing: HostedSigning, rpc_stub: Any, origin: Path, tmp_path: Path
) -> AsyncIterator[Vcs]:
    os.umask(0o022)
    workflow = FakeWorkflow()
    running = await service_host(
        build,
        "vcs",
        listen=True,
        rpc_targets={"workflow": await rpc_stub(workflow)},
        data_dir=tmp_path / "data",
        repository_roots=[str(origin.parent)],
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.rpc_port}") as channel:
        yield Vcs(running, signing, channel, origin, tmp_path, workflow)


def ticket_created(ticket_id: str, project_id: str, title: str = "A ticket") -> workflow_events.TicketCreated:
    """Workflow's event about a new ticket."""
    return workflow_events.TicketCreated(ticket_id=ticket_id, project_id=project_id, title=title)
