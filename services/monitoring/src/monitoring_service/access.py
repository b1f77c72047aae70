"""Who may call what of this service. The event WebSocket guards itself (`events/routes.py`)."""

from __future__ import annotations

from servicekit.auth import Access, AccessTable

ACCESS = AccessTable(
    operations={
        # What a stream shows follows from the permissions in each organization.
        "events.stream_events": Access(),
    },
    consumers={"log": "keeps every event for a day, for streams and their resumption"},
)
