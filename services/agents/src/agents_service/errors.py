"""The errors this service declares."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

AGENT_NOT_FOUND = ErrorSpec("agents.agent_not_found", Kind.NOT_FOUND, "This agent does not exist.")
AGENT_TRANSITION_REFUSED = ErrorSpec(
    "agents.transition_refused", Kind.CONFLICT, "An agent cannot go from its status to this one."
)
AGENT_NOT_ACTIVE = ErrorSpec("agents.agent_not_active", Kind.CONFLICT, "This agent takes no tasks in its status.")
AGENT_ENDED = ErrorSpec(
    "agents.agent_ended", Kind.CONFLICT, "This agent has failed, is quarantined or was terminated; register anew."
)
HEARTBEAT_MISMATCH = ErrorSpec(
    "agents.heartbeat_mismatch", Kind.REFUSED, "The agent id of the message is not the one of the path."
)
CHECKSUM_INVALID = ErrorSpec("agents.checksum_invalid", Kind.REFUSED, "Checksum validation failed")
NO_MATCHING_AGENT = ErrorSpec("agents.no_matching_agent", Kind.NOT_FOUND, "No matching agent found")
SANDBOX_NOT_FOUND = ErrorSpec("agents.sandbox_not_found", Kind.NOT_FOUND, "This sandbox does not exist.")
ATTEMPT_SUPERSEDED = ErrorSpec(
    "agents.attempt_superseded", Kind.CONFLICT, "Another attempt has this task now, or it was taken back."
)
SANDBOX_ENDED = ErrorSpec("agents.sandbox_ended", Kind.CONFLICT, "This sandbox has ended.")
TASK_NOT_FOUND = ErrorSpec("agents.task_not_found", Kind.NOT_FOUND, "No task found for this sandbox.")
CURSOR_INVALID = ErrorSpec("agents.cursor_invalid", Kind.REFUSED, "This cursor is not an event of this sandbox.")
# What vcs finds out when a result is handed in is answered as it says it.
HEAD_MISMATCH = ErrorSpec("vcs.head_mismatch", Kind.CONFLICT, "The branch does not stand at this commit.")
MESSAGE_QUEUE_FULL = ErrorSpec(
    "agents.message_queue_full", Kind.CONFLICT, "The sandbox has not read its earlier messages yet."
)
INGEST_BUSY = ErrorSpec("agents.ingest_busy", Kind.UNAVAILABLE, "Too many events wait to be written.", 1.0)
EVENT_TOO_LARGE = ErrorSpec("agents.event_too_large", Kind.TOO_LARGE, "The data of an event is too large.")
