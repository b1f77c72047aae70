"""One public frame of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitoring_service.event_streams.payload_rules import encoded

READABLE = frozenset(
    {
        *("org:read", "project:read", "document:read", "ticket:read", "task:read", "agent:read"),
        *("billing:read", "monitor:read", "org:members:read"),
    }
)
"""The permissions that decide which frames a principal sees."""


class Frame:
    """One public frame. Its payload is made when the first reader wants it, and encoded once for all of them."""

    __slots__ = ("_payload", "_text", "entity_id", "entity_type", "event_type", "permission", "project_id")

    def __init__(
        self,
        event_type: str,
        entity_type: str,
        entity_id: str,
        project_id: str,
        permission: str,
        payload: Callable[[], dict[str, Any]],
    ) -> None:
        self.event_type = event_type
        self.entity_type = entity_type
        self.entity_id = entity_id
        self.project_id = project_id
        self.permission = permission
        self._payload = payload
        self._text: str | None = None

    def text(self, sequence: int) -> str:
        """The JSON of the frame at its place in the log."""
        if self._text is None:
            self._text = encoded(
                {
                    "event_type": self.event_type,
                    "entity_type": self.entity_type,
                    "entity_id": self.entity_id,
                    "payload": self._payload(),
                    "sequence": sequence,
                }
            )
        return self._text
