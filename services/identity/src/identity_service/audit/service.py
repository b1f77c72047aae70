"""Recording of security-relevant actions, in the transaction of the action itself."""

from __future__ import annotations

from typing import Any

from identity_service.audit import store
from servicekit.db import Tx
from servicekit.ids import new_id


async def record(
    tx: Tx,
    action: str,
    *,
    actor_id: str | None,
    actor_type: str = "user",
    organization_id: str | None = None,
    address: str | None = None,
    **details: Any,
) -> None:
    """Adds an entry to the trail. `details` must be JSON and hold no secret."""
    await store.add(
        tx,
        id=new_id(),
        action=action,
        actor_type=actor_type,
        actor_id=actor_id,
        organization_id=organization_id,
        address=address,
        details=details,
    )
