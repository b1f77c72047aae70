"""Reactions to organizations and executions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from billing_service.ledger.service import Execution, LedgerService
from omoios.identity.events.v1 import events_pb2 as identity_events
from omoios.workflow.events.v1 import events_pb2 as workflow_events
from servicekit.db import Tx
from servicekit.events import Consumers, Event, Permanent


def consumers(ledger: LedgerService) -> Consumers:
    """Opens accounts; confirms and settles reservations."""
    c = Consumers("ledger")

    @c.on(identity_events.OrganizationCreated)
    async def organization_created(tx: Tx, event: Event[identity_events.OrganizationCreated]) -> None:
        await ledger.told_of(tx, event.body.organization_id, event.body.billing_email, event.version)

    @c.on(identity_events.OrganizationUpdated)
    async def organization_updated(tx: Tx, event: Event[identity_events.OrganizationUpdated]) -> None:
        await ledger.told_of(tx, event.body.organization_id, event.body.billing_email, event.version)

    @c.on_batch(workflow_events.ExecutionStarted, workflow_events.ExecutionFinished, workflow_events.ExecutionRestated)
    async def execution_changed(tx: Tx, events: Sequence[Event[Any]]) -> None:
        # Accounts are locked in one order by everybody who locks several, so that nobody waits in a circle.
        for event in sorted(events, key=lambda event: event.organization_id or ""):
            body, execution = event.body, _execution(event.organization_id, event.body)
            match body:
                case workflow_events.ExecutionStarted():
                    await ledger.confirm(tx, execution)
                case workflow_events.ExecutionFinished():
                    await ledger.finish(tx, execution, body.outcome)
                case workflow_events.ExecutionRestated():
                    await ledger.restated(tx, execution, body.state)

    return c


def _execution(
    organization_id: str | None,
    body: workflow_events.ExecutionStarted | workflow_events.ExecutionFinished | workflow_events.ExecutionRestated,
) -> Execution:
    if not organization_id:
        raise Permanent("an execution without an organization cannot be counted")
    return Execution(body.execution_id, organization_id, body.spec_id, body.project_id)
