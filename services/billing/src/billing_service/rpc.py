"""The gRPC servicer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from billing_service.costs.service import CostService
from billing_service.ledger.service import LedgerService, Limits
from billing_service.ledger.tables import Reservation
from omoios.billing.v1 import billing_pb2 as pb
from omoios.billing.v1 import billing_pb2_grpc
from servicekit.errors import invalid

MAX_BATCH = 500


class BillingServicer(billing_pb2_grpc.BillingServiceServicer):
    """`omoios.billing.v1.BillingService`."""

    def __init__(self, ledger: LedgerService, costs: CostService) -> None:
        self._ledger = ledger
        self._costs = costs

    async def ReserveExecution(self, request: pb.ReserveExecutionRequest, context: Any) -> pb.ReserveExecutionResponse:
        reservation = await self._ledger.reserve(
            request.execution_id,
            request.organization_id,
            request.spec_id,
            request.project_id,
            request.budget_micro_usd,
            request.ttl_s,
        )
        return pb.ReserveExecutionResponse(reservation=_reservation(reservation))

    async def BatchGetReservations(
        self, request: pb.BatchGetReservationsRequest, context: Any
    ) -> pb.BatchGetReservationsResponse:
        _bounded("execution_ids", request.execution_ids)
        rows = await self._ledger.find_many(list(request.execution_ids))
        return pb.BatchGetReservationsResponse(reservations=[_reservation(row) for row in rows])

    async def BatchGetLimits(self, request: pb.BatchGetLimitsRequest, context: Any) -> pb.BatchGetLimitsResponse:
        _bounded("organization_ids", request.organization_ids)
        rows = await self._ledger.limits(list(request.organization_ids))
        return pb.BatchGetLimitsResponse(limits=[_limits(row) for row in rows])

    async def GetCostSummary(self, request: pb.GetCostSummaryRequest, context: Any) -> pb.GetCostSummaryResponse:
        _bounded("organization_ids", request.organization_ids)
        since = request.since.ToDatetime(tzinfo=UTC) if request.HasField("since") else None
        totals = await self._costs.totals(list(request.organization_ids), since)
        return pb.GetCostSummaryResponse(
            costs=[
                pb.OrganizationCost(organization_id=id_, total_micro_usd=micro, records=records)
                for id_, (micro, records) in totals.items()
            ]
        )


def _bounded(field: str, values: Sequence[object]) -> None:
    if len(values) > MAX_BATCH:
        raise invalid(field, f"at most {MAX_BATCH} at once", len(values))


def _reservation(row: Reservation) -> pb.Reservation:
    expires_at = Timestamp()
    expires_at.FromDatetime(row.expires_at)
    return pb.Reservation(
        reservation_id=row.id,
        execution_id=row.execution_id,
        organization_id=row.organization_id,
        state=row.state,
        reserved_micro_usd=row.reserved_micro_usd,
        spent_micro_usd=row.spent_micro_usd,
        expires_at=expires_at,
    )


def _limits(row: Limits) -> pb.Limits:
    period_ends_at = Timestamp()
    period_ends_at.FromDatetime(row.period_ends_at)
    return pb.Limits(
        organization_id=row.organization_id,
        tier=row.tier,
        agents_limit=row.agents_limit,
        workflows_limit=row.workflows_limit,
        workflows_used=row.workflows_used,
        credit_micro_usd=row.available_micro_usd,
        sandbox_milliseconds_used=row.sandbox_ms_used,
        period_ends_at=period_ends_at,
        version=row.version,
    )
