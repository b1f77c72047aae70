"""Typed calls of the services below: vcs, billing and identity. Every call has a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from omoios.billing.v1 import billing_pb2, billing_pb2_grpc
from omoios.identity.v1 import identity_pb2, identity_pb2_grpc
from omoios.vcs.v1 import vcs_pb2, vcs_pb2_grpc
from servicekit.rpc import RpcChannels

# A bind or a merge only writes an intent at vcs; a reservation is one transaction at billing.
VCS_TIMEOUT_S = 3.0
BILLING_TIMEOUT_S = 3.0
SNAPSHOT_TIMEOUT_S = 10.0
SNAPSHOT_PAGE = 500


class VcsClient:
    """Repositories and merges."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return vcs_pb2_grpc.VcsServiceStub(self._channels.channel("vcs"))

    async def bind_repository(
        self, project_id: str, organization_id: str, url: str, default_branch: str, github_owner: str, github_repo: str
    ) -> vcs_pb2.Repository:
        """Binds the project's repository, or tells how the binding stands. Idempotent for the same URL."""
        response = await self._stub.BindRepository(
            vcs_pb2.BindRepositoryRequest(
                project_id=project_id,
                organization_id=organization_id,
                url=url,
                default_branch=default_branch,
                github_owner=github_owner,
                github_repo=github_repo,
            ),
            timeout=VCS_TIMEOUT_S,
        )
        repository: vcs_pb2.Repository = response.repository
        return repository

    async def start_merge(self, request: vcs_pb2.StartMergeRequest) -> str:
        """Asks for a merge; its outcomes come as events. Idempotent per merge id."""
        response = await self._stub.StartMerge(request, timeout=VCS_TIMEOUT_S)
        return str(response.merge_id)

    async def merges(self, merge_ids: Sequence[str]) -> list[vcs_pb2.Merge]:
        """How these merges stand; unknown ones are left out."""
        response = await self._stub.BatchGetMerges(
            vcs_pb2.BatchGetMergesRequest(merge_ids=merge_ids), timeout=VCS_TIMEOUT_S
        )
        return list(response.merges)

    async def count_commits(self, project_ids: Sequence[str]) -> dict[str, int]:
        """Number of commits linked, by project."""
        response = await self._stub.BatchCountCommits(
            vcs_pb2.BatchCountCommitsRequest(project_ids=project_ids), timeout=VCS_TIMEOUT_S
        )
        return {item.project_id: item.commits for item in response.counts}


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What billing tells of an organization. `agents_limit`: agents at once, -1 means no limit.

    `sandbox_ms_used`: time of its sandboxes in the month that ends at `period_ends_at`.
    """

    agents_limit: int
    sandbox_ms_used: int
    period_ends_at: datetime


class BillingClient:
    """Reservations and limits."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return billing_pb2_grpc.BillingServiceStub(self._channels.channel("billing"))

    async def reserve(
        self, execution_id: str, organization_id: str, spec_id: str, project_id: str, budget_micro_usd: int
    ) -> billing_pb2.Reservation:
        """Reserves a slot and the budget for an execution. Raises PAYMENT_REQUIRED when the plan does not allow it."""
        response = await self._stub.ReserveExecution(
            billing_pb2.ReserveExecutionRequest(
                execution_id=execution_id,
                organization_id=organization_id,
                spec_id=spec_id,
                project_id=project_id,
                budget_micro_usd=budget_micro_usd,
            ),
            timeout=BILLING_TIMEOUT_S,
        )
        reservation: billing_pb2.Reservation = response.reservation
        return reservation

    async def limits(self, organization_ids: Sequence[str]) -> dict[str, PlanLimits]:
        """What the plan allows and what is used of it, by organization."""
        response = await self._stub.BatchGetLimits(
            billing_pb2.BatchGetLimitsRequest(organization_ids=organization_ids), timeout=BILLING_TIMEOUT_S
        )
        return {
            limits.organization_id: PlanLimits(
                limits.agents_limit, limits.sandbox_milliseconds_used, limits.period_ends_at.ToDatetime(tzinfo=UTC)
            )
            for limits in response.limits
        }


class IdentityClient:
    """The owner of organizations; asked by `make rebuild` only, never for a request."""

    def __init__(self, channels: RpcChannels) -> None:
        self._channels = channels

    @cached_property
    def _stub(self) -> Any:
        return identity_pb2_grpc.IdentityServiceStub(self._channels.channel("identity"))

    async def organizations(self) -> AsyncIterator[Sequence[identity_pb2.Organization]]:
        """All organizations, page by page."""
        token = ""
        while True:
            request = identity_pb2.ListOrganizationSnapshotRequest(page_size=SNAPSHOT_PAGE, page_token=token)
            page = await self._stub.ListOrganizationSnapshot(request, timeout=SNAPSHOT_TIMEOUT_S)
            yield page.organizations
            token = page.next_page_token
            if not token:
                return
