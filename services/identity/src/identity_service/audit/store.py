"""SQL of the audit trail."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from identity_service.audit.tables import AuditEntry
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
    """Adds an entry to the trail, committed with the action. `details` must be JSON and hold no secret."""
    await tx.session.execute(
        insert(AuditEntry).values(
            id=new_id(),
            action=action,
            actor_type=actor_type,
            actor_id=actor_id,
            organization_id=organization_id,
            address=address,
            details=details,
        )
    )
