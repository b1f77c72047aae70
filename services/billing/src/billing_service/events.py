"""Everything this service can say."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing_service.costs.tables import CostRecord
from billing_service.ledger.tables import Account, Reservation
from omoios.billing.events.v1 import events_pb2 as events
from servicekit.db import Tx
from servicekit.telemetry import counter

_reservations = counter("billing_reservations_total", "Reservations by what became of them.", ("outcome",))
_RELEASED = frozenset({"cancelled", "failed", "expired", "unknown"})


def _count(tx: Tx, outcome: str) -> None:
    tx.on_commit(_reservations.labels(outcome).inc)


def account_changed(tx: Tx, account: Account) -> None:
    """An account has another plan, or has used sandbox time."""
    message = events.AccountChanged(
        account_id=account.id, tier=account.tier, sandbox_milliseconds_used=account.sandbox_ms_used
    )
    message.period_ends_at.FromDatetime(account.period_ends_at)
    tx.emit(message, aggregate_id=account.id, version=account.version, organization_id=account.organization_id)


def account_created(tx: Tx, account: Account) -> None:
    """An organization can be billed."""
    tx.emit(
        events.AccountCreated(account_id=account.id, tier=account.tier),
        aggregate_id=account.id,
        version=1,
        organization_id=account.organization_id,
    )


def _emit(tx: Tx, message: Message, reservation: Reservation) -> None:
    tx.emit(
        message, aggregate_id=reservation.id, version=reservation.version, organization_id=reservation.organization_id
    )


def reservation_held(tx: Tx, reservation: Reservation) -> None:
    """A slot and a budget are set aside."""
    _count(tx, "held")
    expires_at = Timestamp()
    expires_at.FromDatetime(reservation.expires_at)
    message = events.ReservationHeld(
        reservation_id=reservation.id,
        execution_id=reservation.execution_id,
        spec_id=reservation.spec_id,
        project_id=reservation.project_id,
        reserved_micro_usd=reservation.reserved_micro_usd,
        expires_at=expires_at,
    )
    _emit(tx, message, reservation)


def reservation_confirmed(tx: Tx, reservation: Reservation) -> None:
    """The execution has begun."""
    message = events.ReservationConfirmed(
        reservation_id=reservation.id, execution_id=reservation.execution_id, project_id=reservation.project_id
    )
    _emit(tx, message, reservation)


def reservation_unsettled(tx: Tx, reservation: Reservation) -> None:
    """The execution began long ago and nothing told of its end."""
    message = events.ReservationUnsettled(
        reservation_id=reservation.id,
        execution_id=reservation.execution_id,
        spec_id=reservation.spec_id,
        project_id=reservation.project_id,
    )
    _emit(tx, message, reservation)


def reservation_settled(tx: Tx, reservation: Reservation) -> None:
    """The execution ended; what was spent is known."""
    _count(tx, "settled")
    message = events.ReservationSettled(
        reservation_id=reservation.id,
        execution_id=reservation.execution_id,
        project_id=reservation.project_id,
        reserved_micro_usd=reservation.reserved_micro_usd,
        spent_micro_usd=reservation.spent_micro_usd,
    )
    _emit(tx, message, reservation)


def reservation_released(tx: Tx, reservation: Reservation, reason: str) -> None:
    """The slot is free again: `cancelled`, `failed`, `expired` or `unknown`."""
    _count(tx, reason if reason in _RELEASED else "released")
    message = events.ReservationReleased(
        reservation_id=reservation.id,
        execution_id=reservation.execution_id,
        project_id=reservation.project_id,
        reason=reason,
    )
    _emit(tx, message, reservation)


def costs_recorded(tx: Tx, account: Account, records: Sequence[CostRecord]) -> None:
    """Usage has its price."""
    message = events.CostsRecorded(
        entries=[
            events.CostEntry(
                cost_id=record.id,
                usage_id=record.usage_id,
                project_id=record.project_id or "",
                execution_id=record.execution_id or "",
                task_id=record.task_id or "",
                sandbox_id=record.sandbox_id or "",
                agent_id=record.agent_id or "",
                kind=record.kind,
                micro_usd=record.total_micro_usd,
            )
            for record in records
        ]
    )
    tx.emit(message, aggregate_id=account.id, organization_id=account.organization_id)


def limit_reached(tx: Tx, account: Account, limit: str, execution_id: str, detail: str) -> None:
    """A limit stopped an execution."""
    _count(tx, "refused")
    message = events.LimitReached(account_id=account.id, limit=limit, execution_id=execution_id, detail=detail)
    tx.emit(message, aggregate_id=account.id, organization_id=account.organization_id)
