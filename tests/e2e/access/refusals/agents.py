"""What agents refuses because of the state of an agent, a sandbox or an attempt."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.access.recipe import Recipe
from tests.e2e.access.refusals.refusal import Refusal

_GONE = {"agent_id": "{terminated_agent_id}"}
_EVENT = {"event_type": "agent.output"}
_USAGE = {"entries": [{"usage_id": "u-1", "provider": "anthropic", "model": "claude-sonnet-4-5"}]}


def _late(state: str, code: str) -> Iterator[Refusal]:
    """What a worker may still say once its attempt is over."""
    bodies = {
        "sandboxes.record_event": _EVENT,
        "sandboxes.record_events": {"events": [_EVENT]},
        "sandboxes.task_complete": {"task_id": f"{{{state}_task_id}}"},
        "sandboxes.release": {"reason": "going away"},
        "sandboxes.report_usage": _USAGE,
    }
    path = {"sandbox_id": f"{{{state}_sandbox_id}}"}
    for operation, body in bodies.items():
        yield Refusal(operation, code, Recipe(path=path, body=body), f"{{{state}_agent_token}}")


REFUSALS = (
    Refusal(
        "agents.register",
        "agents.transition_refused",
        Recipe(
            body={
                "agent_type": "worker",
                "capabilities": [],
                "status": "running",
                "organization_id": "{organization_id}",
            }
        ),
    ),
    Refusal("agents.update_agent", "agents.transition_refused", Recipe(path=_GONE, body={"status": "idle"})),
    Refusal("agents.set_availability", "agents.transition_refused", Recipe(path=_GONE, body={"available": True})),
    Refusal("agents.claim", "agents.agent_not_active", Recipe(path=_GONE, body={"max": 1})),
    Refusal(
        "agents.heartbeat",
        "agents.agent_ended",
        Recipe(path=_GONE, body={"agent_id": "{terminated_agent_id}", "sequence_number": 1, "status": "idle"}),
    ),
    *_late("cancelled", "agents.sandbox_ended"),
    *_late("released", "agents.attempt_superseded"),
    Refusal(
        "sandboxes.send_message",
        "agents.sandbox_ended",
        Recipe(path={"sandbox_id": "{cancelled_sandbox_id}"}, body={"content": "too late"}),
    ),
    Refusal(
        "sandboxes.send_message",
        "agents.message_queue_full",
        Recipe(path={"sandbox_id": "{deaf_sandbox_id}"}, body={"content": "one more"}),
    ),
    Refusal(
        "sandboxes.heartbeat",
        "agents.attempt_superseded",
        Recipe(path={"sandbox_id": "{deaf_sandbox_id}"}, body={"status": "running"}),
        "{other_attempt_token}",
    ),
    # The second completion with another outcome than the first.
    Refusal(
        "sandboxes.task_complete",
        "agents.sandbox_ended",
        Recipe(
            path={"sandbox_id": "{completed_sandbox_id}"},
            body={"task_id": "{completed_task_id}", "success": False, "error_message": "after all"},
        ),
        "{completed_agent_token}",
    ),
    Refusal(
        "sandboxes.task_complete",
        "vcs.head_mismatch",
        Recipe(
            path={"sandbox_id": "{deaf_sandbox_id}"}, body={"task_id": "{deaf_task_id}", "head_sha": "0123456789" * 4}
        ),
        "{deaf_agent_token}",
    ),
)
