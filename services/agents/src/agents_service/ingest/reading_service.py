"""Reading recorded events, for the rooms above."""

from __future__ import annotations

from collections.abc import Sequence

from agents_service.ingest import store
from agents_service.ingest.tables import SandboxEvent, SandboxStream
from servicekit.db import Database
from servicekit.ids import is_uuid

PHASE_EVENTS_MAX = 5_000


class EventReader:
    """Reads of events and streams; access is the caller's business."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def page(
        self, sandbox_id: str, limit: int, offset: int, event_type: str | None
    ) -> tuple[Sequence[SandboxEvent], int]:
        """Events of a sandbox, newest first, and how many there are."""
        async with self.db.reader() as tx:
            return await store.list_events(tx, sandbox_id, limit=limit, offset=offset, event_type=event_type)

    async def position_of(self, sandbox_id: str, event_id: str) -> int | None:
        """The position of an event in its sandbox; None when it is not one of it."""
        if not is_uuid(event_id):
            return None
        async with self.db.reader() as tx:
            return await store.position_of(tx, sandbox_id, event_id)

    async def trajectory(
        self, sandbox_id: str, limit: int, *, before: int | None, after: int | None
    ) -> Sequence[SandboxEvent]:
        """Events without heartbeats and search noise."""
        async with self.db.reader() as tx:
            return await store.trajectory(tx, sandbox_id, limit=limit, before=before, after=after)

    async def streams(self, sandbox_ids: Sequence[str]) -> dict[str, SandboxStream]:
        """Streams by sandbox id."""
        async with self.db.reader() as tx:
            return await store.streams_of(tx, sandbox_ids)

    async def latest(self, sandbox_ids: Sequence[str], types: Sequence[str]) -> Sequence[SandboxEvent]:
        """The newest event of each type, per sandbox."""
        async with self.db.reader() as tx:
            return await store.latest_of_types(tx, sandbox_ids, types)

    async def of_types(self, sandbox_ids: Sequence[str], types: Sequence[str]) -> Sequence[SandboxEvent]:
        """The first events of the given types, per sandbox in order."""
        async with self.db.reader() as tx:
            return await store.events_of_types(tx, sandbox_ids, types, PHASE_EVENTS_MAX)
