"""The mapping of events to public frames."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring_service.event_streams.frame_rules import READABLE
from monitoring_service.event_streams.mapping_rules import KINDS, PACKED, SILENT, frames_of
from omoios.agents.events.v1 import events_pb2 as agents
from omoios.vcs.events.v1 import events_pb2 as vcs
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.events.registry import SERVICES, events_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SUBJECTS = {subject: cls for service in SERVICES for subject, cls in events_of(service).items()}


def told(subject: str, body: Any) -> list[dict[str, Any]]:
    return [json.loads(frame.text(7)) for frame in frames_of(subject, body, NOW)]


def test_every_event_has_frames_or_a_reason_for_none() -> None:
    mapped = set(KINDS) | set(PACKED) | set(SILENT)
    assert set(SUBJECTS) == mapped
    assert not set(KINDS) & set(SILENT)


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_each_event_can_be_told_even_empty(subject: str) -> None:
    for frame in frames_of(subject, SUBJECTS[subject](), NOW):
        text = json.loads(frame.text(1))
        assert set(text) == {"event_type", "entity_type", "entity_id", "payload", "sequence"}
        assert frame.permission in READABLE
        assert text["event_type"]


def test_ends_of_tasks_and_conversations_have_their_names() -> None:
    task = workflow.TaskReference(task_id="t", project_id="p")
    late = "The task timed out: it ran 61 s of 60 s."
    for body, subject, names in (
        (workflow.TaskFailed(task=task), "failed", ["TASK_FAILED", "TASK_PERMANENTLY_FAILED"]),
        (
            workflow.TaskFailed(task=task, error_message=late),
            "failed",
            ["TASK_FAILED", "TASK_PERMANENTLY_FAILED", "TASK_TIMED_OUT"],
        ),
        (
            workflow.TaskRetryScheduled(task=task, error_message=late),
            "retry_scheduled",
            ["TASK_RETRY_SCHEDULED", "TASK_STATUS_CHANGED", "TASK_TIMED_OUT"],
        ),
        (workflow.TaskUpdated(task=task, changes_json='{"title": "x"}'), "updated", ["TASK_UPDATED"]),
    ):
        assert [frame["event_type"] for frame in told(f"workflow.task.{subject}.v1", body)] == names
    body = workflow.TaskUpdated(task=task, changes_json='{"conversation_id": "c-1"}')
    registered = told("workflow.task.updated.v1", body)[1]
    assert (registered["event_type"], registered["payload"]["conversation_id"]) == ("CONVERSATION_REGISTERED", "c-1")


def test_frames_of_agents_carry_what_the_contract_names() -> None:
    moved = agents.AgentUpdated(agent_id="a", status="IDLE", old_status="RUNNING", reason="r", triggered_by="b")
    (frame,) = told("agents.agent.updated.v1", moved)
    assert {"previous_status", "new_status", "reason", "task_id", "triggered_by"} <= set(frame["payload"])
    (missed,) = told("agents.agent.went_stale.v1", agents.AgentWentStale(agent_id="a", missed_heartbeats=2))
    assert missed["payload"]["action"] == "mark_degraded"
    for kind, priority in (("interrupt", "high"), ("user_message", "normal")):
        queued = agents.SandboxMessageQueued(sandbox_id="s", message_type=kind)
        (frame,) = told("agents.sandbox.message_queued.v1", queued)
        assert frame["payload"]["priority"] == priority


# What the board, the command page and the activity page of the web client filter on or have a label for.
def names_of_everything() -> set[str]:
    found = {kind.name for kinds in KINDS.values() for kind in kinds if isinstance(kind.name, str)}
    task = workflow.TaskReference(task_id="t", project_id="p")
    started = agents.SandboxEventsRecorded(events=[agents.SandboxEvent(event_type="agent.started")])
    completed = agents.SandboxEventsRecorded(events=[agents.SandboxEvent(event_type="agent.completed")])
    for body in (started, completed):
        found |= {frame["event_type"] for frame in told("agents.sandbox.events_recorded.v1", body)}
    found |= {frame["event_type"] for frame in told("workflow.task.started.v1", workflow.TaskStarted(task=task))}
    commits = vcs.CommitsLinked(commits=[vcs.LinkedCommit(sha="a")])
    return found | {frame["event_type"] for frame in told("vcs.commits.linked.v1", commits)}


@pytest.mark.parametrize(
    "name",
    [
        *("TICKET_CREATED", "TICKET_UPDATED", "TICKET_STATUS_CHANGED", "TICKET_PHASE_ADVANCED", "TASK_CREATED"),
        *("TASK_ASSIGNED", "TASK_STATUS_CHANGED", "TASK_COMPLETED", "SANDBOX_SPAWNED", "SANDBOX_COMPLETED"),
        *("agent.started", "agent.completed", "sandbox.spawned", "TASK_STARTED", "TASK_SANDBOX_ASSIGNED"),
        *("COMMIT_LINKED", "TICKET_BLOCKED", "ticket.blocked", "TICKET_UNBLOCKED", "AGENT_REGISTERED"),
        *("SANDBOX_agent.started", "SANDBOX_agent.completed", "ticket.status_transitioned", "board.ticket_moved"),
    ],
)
def test_names_the_web_client_waits_for(name: str) -> None:
    assert name in names_of_everything()


def test_a_move_on_the_board_is_told_under_each_name_that_applies() -> None:
    body = workflow.TicketTransitioned(
        ticket_id="t-1",
        project_id="p-1",
        from_status="backlog",
        to_status="building",
        from_phase="PHASE_BACKLOG",
        to_phase="PHASE_IMPLEMENTATION",
        to_column="building",
        title="Do it",
    )
    frames = {frame["event_type"]: frame for frame in told("workflow.ticket.transitioned.v1", body)}
    assert set(frames) == {
        *("ticket.status_transitioned", "TICKET_STATUS_CHANGED", "ticket.phase_transitioned"),
        *("TICKET_PHASE_ADVANCED", "board.ticket_moved"),
    }
    assert frames["TICKET_PHASE_ADVANCED"]["payload"]["new_phase"] == "PHASE_IMPLEMENTATION"
    assert {frame["payload"]["ticket_title"] for frame in frames.values()} == {"Do it"}
    body.from_phase, body.to_column = body.to_phase, ""
    assert [frame["event_type"] for frame in told("workflow.ticket.transitioned.v1", body)] == [
        "ticket.status_transitioned",
        "TICKET_STATUS_CHANGED",
    ]


def test_a_tasks_reference_lies_flat_in_its_payload() -> None:
    task = workflow.TaskReference(task_id="t", ticket_id="k", project_id="p", title="Do it", status="completed")
    (frame,) = told("workflow.task.completed.v1", workflow.TaskCompleted(task=task, sandbox_id="s", has_result=True))
    payload = frame["payload"]
    assert (frame["entity_type"], frame["entity_id"], frame["sequence"]) == ("task", "t", 7)
    assert payload["task_title"] == payload["title"] == "Do it"
    assert (payload["ticket_id"], payload["sandbox_id"], payload["status"]) == ("k", "s", "completed")
    assert payload["has_result"] is True
    assert payload["timestamp"] == "2026-11-23T12:00:00Z"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.tuples(st.sampled_from(["agent.output", "agent.completed", "x"]), json_values), max_size=6))
def test_any_reported_data_becomes_valid_json(reported: list[tuple[str, Any]]) -> None:
    body = agents.SandboxEventsRecorded(
        sandbox_id="s",
        events=[
            agents.SandboxEvent(event_type=name, data_json=json.dumps(data).encode(errors="surrogatepass"))
            for name, data in reported
        ],
    )
    frames = told("agents.sandbox.events_recorded.v1", body)
    assert len(frames) == len(reported) + sum(name == "agent.completed" for name, _ in reported)
    assert all(frame["payload"]["original_event_type"] for frame in frames)


@given(st.binary(max_size=40))
def test_broken_data_is_told_without_it(data: bytes) -> None:
    body = agents.SandboxEventsRecorded(events=[agents.SandboxEvent(event_type="x", data_json=data)])
    assert told("agents.sandbox.events_recorded.v1", body)[0]["event_type"] == "SANDBOX_x"
