"""Typed calls of the services whose facts are replicated here; used by `make rebuild` only, never for a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import Any

from omoios.billing.v1 import billing_pb2, billing_pb2_grpc
from omoios.vcs.v1 import vcs_pb2, vcs_pb2_grpc
from omoios.workflow.v1 import workflow_pb2, workflow_pb2_grpc
from servicekit.rpc import RpcChannels

SNAPSHOT_TIMEOUT_S = 10.0
PAGE = 500


class SnapshotClient:
    """Projects of workflow, repositories of vcs, plans of billing."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _workflow(self) -> Any:
        return workflow_pb2_grpc.WorkflowServiceStub(self._channels.channel("workflow"))

    @cached_property
    def _vcs(self) -> Any:
        return vcs_pb2_grpc.VcsServiceStub(self._channels.channel("vcs"))

    @cached_property
    def _billing(self) -> Any:
        return billing_pb2_grpc.BillingServiceStub(self._channels.channel("billing"))

    async def projects(self) -> AsyncIterator[Sequence[workflow_pb2.Project]]:
        """All projects, page by page."""
        token = ""
        while True:
            request = workflow_pb2.ListProjectSnapshotRequest(page_size=PAGE, page_token=token)
            page = await self._workflow.ListProjectSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.projects
            token = page.next_page_token
            if not token:
                return

    async def repositories(self) -> AsyncIterator[Sequence[vcs_pb2.Repository]]:
        """All repositories, page by page."""
        token = ""
        while True:
            request = vcs_pb2.ListRepositorySnapshotRequest(page_size=PAGE, page_token=token)
            page = await self._vcs.ListRepositorySnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.repositories
            token = page.next_page_token
            if not token:
                return

    async def plans(self, organization_ids: Sequence[str]) -> Sequence[billing_pb2.Limits]:
        """The plans of organizations, 500 at most."""
        request = billing_pb2.BatchGetLimitsRequest(organization_ids=organization_ids)
        answer = await self._billing.BatchGetLimits(request, timeout=SNAPSHOT_TIMEOUT_S)
        return list(answer.limits)
