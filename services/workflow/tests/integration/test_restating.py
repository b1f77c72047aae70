"""How an execution stands is told again to whoever missed its end."""

from __future__ import annotations

from typing import Any

from omoios.billing.events.v1 import events_pb2 as billing_events
from omoios.workflow.events.v1 import events_pb2 as own

RESTATED = "workflow.execution.restated.v1"


async def states(flow: Any) -> list[tuple[str, str]]:
    """(organization, state) of every restatement so far."""
    rows = await flow.events(RESTATED)
    return [(row["organization_id"], own.ExecutionRestated.FromString(row["payload"]).state) for row in rows]


async def test_open_ended_unknown_and_foreign_executions(flow: Any) -> None:
    project = await flow.project()
    spec = await flow.spec(project["id"])
    execution = (await flow.call("POST", f"/specs/{spec['id']}/execute"))["execution_id"]
    asked = billing_events.ReservationUnsettled(execution_id=execution, spec_id=spec["id"], project_id=project["id"])
    await flow.deliver(asked, organization=flow.organization)
    await flow.call("POST", f"/specs/{spec['id']}/cancel")
    await flow.deliver(asked, organization=flow.organization)
    gone = billing_events.ReservationUnsettled(execution_id="execution-gone", spec_id="s", project_id="p")
    await flow.deliver(gone, organization=flow.organization)
    await flow.deliver(asked, organization="another")
    assert await states(flow) == [(flow.organization, state) for state in ("running", "cancelled", "unknown")]
    # Nothing happened to the execution by being told of again.
    assert len(await flow.events("workflow.execution.finished.v1")) == 1
