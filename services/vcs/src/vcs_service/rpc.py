"""The gRPC servicer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from omoios.vcs.v1 import vcs_pb2 as pb
from omoios.vcs.v1 import vcs_pb2_grpc
from servicekit.errors import AppError, invalid
from vcs_service.branch_workflow.service import BranchService, BranchStart
from vcs_service.commits.service import CommitService
from vcs_service.merging.service import MergingService
from vcs_service.merging.tables import Merge
from vcs_service.mirror.service import MirrorService
from vcs_service.mirror.tables import Repository

MAX_BATCH = 500
MAX_STARTS = 100

_STATES = {
    "mirroring": pb.REPOSITORY_STATE_MIRRORING,
    "ready": pb.REPOSITORY_STATE_READY,
    "failed": pb.REPOSITORY_STATE_FAILED,
}
_MERGE_STATES = {
    "queued": pb.MERGE_STATE_QUEUED,
    "running": pb.MERGE_STATE_RUNNING,
    "finished": pb.MERGE_STATE_FINISHED,
    "failed": pb.MERGE_STATE_FAILED,
}


class VcsServicer(vcs_pb2_grpc.VcsServiceServicer):
    """`omoios.vcs.v1.VcsService`."""

    def __init__(
        self,
        mirror: MirrorService,
        branches: BranchService,
        merging: MergingService,
        commits: CommitService,
        public_url: str,
    ) -> None:
        self._mirror = mirror
        self._branches = branches
        self._merging = merging
        self._commits = commits
        self._public_url = public_url.rstrip("/")

    async def BindRepository(self, request: pb.BindRepositoryRequest, context: Any) -> pb.BindRepositoryResponse:
        if not (request.project_id and request.organization_id):
            raise invalid("project_id", "project_id and organization_id are needed")
        repository = await self._mirror.bind(
            request.project_id,
            request.organization_id,
            request.url,
            default_branch=request.default_branch,
            github_owner=request.github_owner,
            github_repo=request.github_repo,
        )
        return pb.BindRepositoryResponse(repository=_repository(repository))

    async def UnbindRepository(self, request: pb.UnbindRepositoryRequest, context: Any) -> pb.UnbindRepositoryResponse:
        await self._mirror.unbind(request.project_id)
        return pb.UnbindRepositoryResponse()

    async def BatchGetRepositories(
        self, request: pb.BatchGetRepositoriesRequest, context: Any
    ) -> pb.BatchGetRepositoriesResponse:
        _bounded("project_ids", request.project_ids)
        rows = await self._mirror.get_many(list(request.project_ids))
        return pb.BatchGetRepositoriesResponse(repositories=[_repository(row) for row in rows])

    async def StartBranches(self, request: pb.StartBranchesRequest, context: Any) -> pb.StartBranchesResponse:
        _bounded("starts", request.starts, MAX_STARTS)
        return pb.StartBranchesResponse(
            branches=await asyncio.gather(*(self._start_branch(start) for start in request.starts))
        )

    async def FinishBranch(self, request: pb.FinishBranchRequest, context: Any) -> pb.FinishBranchResponse:
        done = await self._branches.finish_attempt(
            request.project_id, request.task_id, request.attempt, request.head_sha
        )
        return pb.FinishBranchResponse(
            branch=done.branch,
            head_sha=done.head_sha,
            commits=done.commits,
            files_changed=len(done.files),
            insertions=done.insertions,
            deletions=done.deletions,
            files=done.files[:1000],
        )

    async def StartMerge(self, request: pb.StartMergeRequest, context: Any) -> pb.StartMergeResponse:
        merge_id = await self._merging.start(
            request.merge_id,
            request.project_id,
            request.organization_id,
            request.spec_id,
            request.target_branch,
            [
                {
                    "task_id": item.task_id,
                    "ticket_id": item.ticket_id,
                    "branch": item.branch,
                    "head_sha": item.head_sha,
                    "attempt": item.attempt,
                }
                for item in request.items
            ],
        )
        return pb.StartMergeResponse(merge_id=merge_id)

    async def BatchGetMerges(self, request: pb.BatchGetMergesRequest, context: Any) -> pb.BatchGetMergesResponse:
        _bounded("merge_ids", request.merge_ids)
        rows = await self._merging.get_many(list(request.merge_ids))
        return pb.BatchGetMergesResponse(merges=[_merge(row) for row in rows])

    async def BatchCountCommits(
        self, request: pb.BatchCountCommitsRequest, context: Any
    ) -> pb.BatchCountCommitsResponse:
        _bounded("project_ids", request.project_ids)
        counts = await self._commits.count(list(request.project_ids))
        return pb.BatchCountCommitsResponse(
            counts=[pb.CommitCount(project_id=id_, commits=counts.get(id_, 0)) for id_ in request.project_ids]
        )

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> pb.ReadFileResponse:
        content, sha = await self._mirror.read_file(request.project_id, request.ref, request.path)
        return pb.ReadFileResponse(content=content, sha=sha)

    async def ListRepositorySnapshot(
        self, request: pb.ListRepositorySnapshotRequest, context: Any
    ) -> pb.ListRepositorySnapshotResponse:
        size = min(max(request.page_size or MAX_BATCH, 1), MAX_BATCH)
        rows = await self._mirror.page(request.page_token, size)
        return pb.ListRepositorySnapshotResponse(
            repositories=[_repository(row) for row in rows],
            next_page_token=rows[-1].project_id if len(rows) == size else "",
        )

    async def _start_branch(self, start: pb.BranchStart) -> pb.StartedBranch:
        try:
            branch = await self._branches.start_attempt(
                BranchStart(
                    project_id=start.project_id,
                    task_id=start.task_id,
                    ticket_id=start.ticket_id,
                    attempt=start.attempt,
                    base_branch=start.base_branch,
                    sandbox_id=start.sandbox_id,
                    spec_id=start.spec_id,
                    agent_id=start.agent_id,
                    dependency_branches=start.dependency_branches,
                )
            )
        except AppError as error:
            detail = error.detail if not error.fields else error.fields[0].msg
            return pb.StartedBranch(task_id=start.task_id, error_code=error.code, error_detail=detail)
        return pb.StartedBranch(
            task_id=start.task_id,
            branch=branch.branch,
            base_sha=branch.base_sha,
            clone_url=f"{self._public_url}/api/v1/git/{branch.project_id}.git",
        )


def _bounded(field: str, values: Sequence[object], limit: int = MAX_BATCH) -> None:
    if len(values) > limit:
        raise invalid(field, f"at most {limit} at once", len(values))


def _repository(row: Repository) -> pb.Repository:
    return pb.Repository(
        project_id=row.project_id,
        organization_id=row.organization_id,
        url=row.url,
        default_branch=row.default_branch,
        state=_STATES[row.state],
        error=row.error or "",
        head_sha=row.head_sha or "",
        github_owner=row.github_owner or "",
        github_repo=row.github_repo or "",
        version=row.version,
    )


def _merge(row: Merge) -> pb.Merge:
    return pb.Merge(
        merge_id=row.id,
        state=_MERGE_STATES[row.state],
        outcomes=[pb.MergeOutcome(**outcome) for outcome in row.outcomes],
        target_sha=row.target_sha or "",
    )
