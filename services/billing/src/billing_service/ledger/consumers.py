"""Reactions to organizations and executions."""

from __future__ import annotations

from billing_service.ledger.service import LedgerService
from omoios.identity.events.v1 import events_pb2 as identity_events
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.db import Tx
from servicekit.events import Consumers, Event


def consumers(ledger: LedgerService) -> Consumers:
    """Opens accounts; confirms and settles reservations."""
    c = Consumers("ledger")

    @c.on(identity_events.OrganizationCreated)
    async def organization_created(tx: Tx, event: Event[identity_events.OrganizationCreated]) -> None:
        await ledger.open_account(tx, event.body.organization_id, event.body.billing_email)

    @c.on(identity_events.OrganizationUpdated)
    async def organization_updated(tx: Tx, event: Event[identity_events.OrganizationUpdated]) -> None:
        await ledger.update_account(tx, event.body.organization_id, event.body.billing_email)

    @c.on(workflow_events.ExecutionStarted)
    async def execution_started(tx: Tx, event: Event[workflow_events.ExecutionStarted]) -> None:
        await ledger.confirm(tx, event.body.execution_id)

    @c.on(workflow_events.ExecutionFinished)
    async def execution_finished(tx: Tx, event: Event[workflow_events.ExecutionFinished]) -> None:
        await ledger.finish(tx, event.body.execution_id, event.body.outcome)

    return c
