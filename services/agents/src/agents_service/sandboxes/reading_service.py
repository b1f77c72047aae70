"""What can be read of a sandbox: its events, trajectory, task, phases and activity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from agents_service.clients import moment
from agents_service.errors import CURSOR_INVALID, TASK_NOT_FOUND
from agents_service.ingest.reading_service import EventReader
from agents_service.ingest.tables import SandboxEvent, SandboxStream
from agents_service.sandboxes import rules, store
from agents_service.sandboxes.schemas import (
    ActivityOut,
    HeartbeatSummary,
    MonitoredSandbox,
    MonitoringStatus,
    PhaseReport,
    PhaseStatusOut,
    SandboxEventOut,
    SandboxEvents,
    SandboxTask,
    Trajectory,
)
from agents_service.sandboxes.service import SandboxService
from servicekit.auth import Principal
from servicekit.clock import utc_now

MONITORED_MAX = 500
_RUNNING_BEAT = '{"status":"running"}'


class SandboxReading:
    """Reads of one sandbox or of all running ones."""

    def __init__(self, sandboxes: SandboxService, reader: EventReader) -> None:
        self.sandboxes = sandboxes
        self.reader = reader

    async def list_events(
        self, principal: Principal, sandbox_id: str, limit: int, offset: int, event_type: str | None
    ) -> SandboxEvents:
        """A page of events, newest first. Raises 404."""
        await self.sandboxes.readable(principal, sandbox_id)
        rows, total = await self.reader.page(sandbox_id, limit, offset, event_type)
        return SandboxEvents(events=[_event(row) for row in rows], total_count=total, sandbox_id=sandbox_id)

    async def trajectory(
        self, principal: Principal, sandbox_id: str, limit: int, cursor: str | None, direction: str
    ) -> Trajectory:
        """Events older or newer than the event named by `cursor`. Raises 404, 400 for a foreign cursor."""
        await self.sandboxes.readable(principal, sandbox_id)
        position = None
        if cursor is not None:
            position = await self.reader.position_of(sandbox_id, cursor)
            if position is None:
                raise CURSOR_INVALID()
        newer = direction == "newer" and position is not None
        rows = list(
            await self.reader.trajectory(
                sandbox_id, limit + 1, before=None if newer else position, after=position if newer else None
            )
        )
        has_more = len(rows) > limit
        kept = rows[:limit]
        if newer:
            kept.reverse()
        stream = (await self.reader.streams([sandbox_id])).get(sandbox_id)
        return Trajectory(
            sandbox_id=sandbox_id,
            events=[_event(row) for row in kept],
            heartbeat_summary=HeartbeatSummary(
                count=stream.heartbeat_count if stream else 0,
                first_heartbeat=stream.first_heartbeat_at if stream else None,
                last_heartbeat=stream.last_heartbeat_at if stream else None,
            ),
            total_events=stream.last_sequence if stream else 0,
            trajectory_events=len(kept),
            next_cursor=kept[-1].event_id if kept and (has_more or newer) else None,
            prev_cursor=kept[0].event_id if kept else None,
            has_more=has_more,
        )

    async def task(self, principal: Principal, sandbox_id: str) -> SandboxTask:
        """The sandbox's task as workflow has it. Raises 404."""
        sandbox = await self.sandboxes.readable(principal, sandbox_id, "task:read")
        task = (await self.sandboxes.workflow.tasks([sandbox.task_id])).get(sandbox.task_id)
        if task is None:
            raise TASK_NOT_FOUND(f"No task found for sandbox {sandbox_id}")

        def when(name: Literal["created_at", "started_at", "completed_at"]) -> datetime | None:
            return moment(getattr(task, name)) if task.HasField(name) else None

        return SandboxTask(
            id=task.id,
            ticket_id=task.ticket_id,
            phase_id=task.phase_id,
            task_type=task.task_type,
            title=task.title or None,
            description=task.description or None,
            priority=task.priority,
            status=task.status,
            sandbox_id=sandbox_id,
            assigned_agent_id=task.assigned_agent_id or None,
            created_at=when("created_at"),
            updated_at=when("completed_at") or when("started_at") or when("created_at"),
            started_at=when("started_at"),
            completed_at=when("completed_at"),
        )

    async def phases(self, principal: Principal, sandbox_id: str) -> PhaseReport:
        """Phases and activity of one sandbox. Raises 404."""
        await self.sandboxes.readable(principal, sandbox_id)
        now = utc_now()
        found = (await self._judge([sandbox_id], now))[0]
        assert found.phase_status is not None
        assert found.activity is not None
        return PhaseReport(
            sandbox_id=sandbox_id, phase_status=found.phase_status, activity=found.activity, timestamp=now
        )

    async def monitoring(self, principal: Principal) -> MonitoringStatus:
        """All running sandboxes of the caller's organizations, judged."""
        now = utc_now()
        async with self.sandboxes.db.reader() as tx:
            running = await store.running(tx, principal.organizations_with("agent:read"), MONITORED_MAX)
        found = await self._judge([sandbox.id for sandbox in running], now)
        stuck = [
            item
            for item in found
            if (item.activity and item.activity.is_idle)
            or (item.phase_status and item.phase_status.is_stuck_between_phases)
        ]
        return MonitoringStatus(
            sandboxes=found,
            active_count=sum(1 for item in found if item.activity and item.activity.is_alive),
            spec_sandbox_count=sum(1 for item in found if item.phase_status and item.phase_status.is_spec_sandbox),
            stuck_count=len(stuck),
            timestamp=now,
        )

    async def _judge(self, sandbox_ids: Sequence[str], now: datetime) -> list[MonitoredSandbox]:
        if not sandbox_ids:
            return []
        streams = await self.reader.streams(sandbox_ids)
        latest: dict[tuple[str, str], SandboxEvent] = {}
        phases: dict[str, list[tuple[str, str, datetime]]] = {}
        for row in await self.reader.latest(sandbox_ids, rules.ACTIVITY_EVENTS):
            latest[row.sandbox_id, row.event_type] = row
        for row in await self.reader.of_types(sandbox_ids, rules.PHASE_EVENTS):
            phases.setdefault(row.sandbox_id, []).append((row.event_type, row.event_data, row.created_at))
        return [
            self._judge_one(sandbox_id, streams.get(sandbox_id), latest, phases.get(sandbox_id, []), now)
            for sandbox_id in sandbox_ids
        ]

    def _judge_one(
        self,
        sandbox_id: str,
        stream: SandboxStream | None,
        latest: dict[tuple[str, str], SandboxEvent],
        phases: Sequence[tuple[str, str, datetime]],
        now: datetime,
    ) -> MonitoredSandbox:
        if stream is None:
            return MonitoredSandbox(sandbox_id=sandbox_id, activity=None, phase_status=None, error="no stream")
        keys = [(sandbox_id, "agent.heartbeat"), (sandbox_id, "spec.heartbeat")]
        beats = [latest[key] for key in keys if key in latest]
        beat = max(beats, key=lambda row: row.sequence, default=None)
        completed = latest.get((sandbox_id, "agent.completed"))
        judged = rules.activity(
            now,
            stream.opened_at,
            stream.last_work_at,
            stream.last_heartbeat_at,
            # Who beats by POST /heartbeat sends no event; its lease is renewed, thus it runs.
            beat.event_data if beat else _RUNNING_BEAT,
            completed.created_at if completed else None,
        )
        status = rules.phase_status(sandbox_id, phases, now, judged.is_alive)
        return MonitoredSandbox(
            sandbox_id=sandbox_id,
            activity=ActivityOut(sandbox_id=sandbox_id, **asdict(judged)),
            phase_status=PhaseStatusOut(sandbox_id=sandbox_id, **asdict(status)),
        )


def _event(row: SandboxEvent) -> SandboxEventOut:
    data: dict[str, Any] = json.loads(row.event_data)
    return SandboxEventOut(
        id=row.event_id,
        sandbox_id=row.sandbox_id,
        event_type=row.event_type,
        event_data=data,
        source=row.source,
        created_at=row.created_at,
        sequence=row.sequence,
    )
