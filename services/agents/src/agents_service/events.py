"""Everything this service can say. Each function makes one message; the use case emits it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from agents_service.ingest.rules import IncomingEvent, ModelUsage, StreamState
from omoios.agents.events.v1 import events_pb2 as pb

if TYPE_CHECKING:
    from agents_service.agents.tables import Agent
    from agents_service.sandboxes.tables import Sandbox


def stamp(moment: datetime | None) -> Timestamp | None:
    """A protobuf timestamp; None stays None."""
    if moment is None:
        return None
    result = Timestamp()
    result.FromDatetime(moment)
    return result


def agent_registered(agent: Agent) -> pb.AgentRegistered:
    """An agent is there."""
    return pb.AgentRegistered(
        agent_id=agent.id,
        agent_type=agent.agent_type,
        phase_id=agent.phase_id or "",
        capabilities=agent.capabilities,
        capacity=agent.capacity,
        status=agent.status,
        agent_name=agent.agent_name,
    )


def agent_updated(
    agent: Agent, old_status: str, reason: str = "", by: str = "", task_id: str | None = None
) -> pb.AgentUpdated:
    """Something about an agent changed; `old_status` equals the status when that did not."""
    return pb.AgentUpdated(
        agent_id=agent.id,
        status=agent.status,
        old_status=old_status,
        capabilities=agent.capabilities,
        capacity=agent.capacity,
        health_status=agent.health_status,
        reason=reason,
        task_id=task_id or "",
        triggered_by=by,
    )


def agent_went_stale(agent_id: str, last_heartbeat: datetime | None, missed: int) -> pb.AgentWentStale:
    """Heartbeats of an agent are missing."""
    return pb.AgentWentStale(agent_id=agent_id, last_heartbeat=stamp(last_heartbeat), missed_heartbeats=missed)


def agent_recovered(agent_id: str) -> pb.AgentRecovered:
    """A silent agent beats again."""
    return pb.AgentRecovered(agent_id=agent_id)


def sandbox_started(sandbox: Sandbox) -> pb.SandboxStarted:
    """An attempt has its sandbox."""
    return pb.SandboxStarted(
        sandbox_id=sandbox.id,
        agent_id=sandbox.agent_id,
        task_id=sandbox.task_id,
        ticket_id=sandbox.ticket_id,
        project_id=sandbox.project_id,
        spec_id=sandbox.spec_id,
        execution_id=sandbox.execution_id,
        attempt=sandbox.attempt,
        engine=sandbox.engine,
        branch=sandbox.branch,
        isolation=sandbox.isolation,
        phase_id=sandbox.phase_id,
    )


def sandbox_ended(sandbox: Sandbox, reason: str, ended_at: datetime) -> pb.SandboxEnded:
    """A sandbox is over."""
    return pb.SandboxEnded(
        sandbox_id=sandbox.id,
        agent_id=sandbox.agent_id,
        task_id=sandbox.task_id,
        ticket_id=sandbox.ticket_id,
        project_id=sandbox.project_id,
        spec_id=sandbox.spec_id,
        execution_id=sandbox.execution_id,
        attempt=sandbox.attempt,
        reason=reason,
        started_at=stamp(sandbox.started_at),
        ended_at=stamp(ended_at),
    )


def events_recorded(
    stream: StreamState, placed: Sequence[tuple[int, IncomingEvent]], moment: Timestamp
) -> pb.SandboxEventsRecorded:
    """A run of events of one sandbox, as recorded at `moment`."""
    return pb.SandboxEventsRecorded(
        sandbox_id=stream.sandbox_id,
        task_id=stream.task_id,
        ticket_id=stream.ticket_id,
        project_id=stream.project_id,
        spec_id=stream.spec_id,
        events=[
            pb.SandboxEvent(
                event_id=event.event_id,
                sequence=sequence,
                event_type=event.event_type,
                data_json=event.data.encode(),
                source=event.source,
                time=moment,
            )
            for sequence, event in placed
        ],
    )


def lifecycle_reported(stream: StreamState, event: IncomingEvent) -> pb.SandboxLifecycleReported:
    """A worker reported something that bears on its task."""
    return pb.SandboxLifecycleReported(
        sandbox_id=stream.sandbox_id,
        task_id=stream.task_id,
        attempt=stream.attempt,
        event_type=event.event_type,
        data_json=event.data.encode(),
    )


def message_queued(sandbox: Sandbox, message_id: str, message_type: str, sender_id: str) -> pb.SandboxMessageQueued:
    """A message waits for a sandbox; its content is not told."""
    return pb.SandboxMessageQueued(
        sandbox_id=sandbox.id,
        task_id=sandbox.task_id,
        project_id=sandbox.project_id,
        message_id=message_id,
        message_type=message_type,
        sender_id=sender_id,
    )


def model_tokens(stream: StreamState, usage_id: str, usage: ModelUsage, moment: Timestamp) -> pb.UsageEntry:
    """Tokens used by a model in a sandbox."""
    return pb.UsageEntry(
        usage_id=usage_id,
        project_id=stream.project_id,
        spec_id=stream.spec_id,
        execution_id=stream.execution_id,
        phase_id=stream.phase_id,
        ticket_id=stream.ticket_id,
        task_id=stream.task_id,
        sandbox_id=stream.sandbox_id,
        agent_id=stream.agent_id,
        kind="model_tokens",
        provider=usage.provider,
        model=usage.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reported_micro_usd=usage.reported_micro_usd,
        time=moment,
    )


def sandbox_time(sandbox: Sandbox, milliseconds: int, ended_at: datetime) -> pb.UsageEntry:
    """How long a sandbox lived; its id is the sandbox's, so that it counts once."""
    return pb.UsageEntry(
        usage_id=f"sandbox-time:{sandbox.id}",
        project_id=sandbox.project_id,
        spec_id=sandbox.spec_id,
        execution_id=sandbox.execution_id,
        phase_id=sandbox.phase_id,
        ticket_id=sandbox.ticket_id,
        task_id=sandbox.task_id,
        sandbox_id=sandbox.id,
        agent_id=sandbox.agent_id,
        kind="sandbox_seconds",
        sandbox_milliseconds=milliseconds,
        time=stamp(ended_at),
    )


def usage_recorded(entries: Iterable[pb.UsageEntry]) -> pb.UsageRecorded:
    """What was used, packed."""
    return pb.UsageRecorded(entries=entries)
