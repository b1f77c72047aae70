"""SQL of the audit trail."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from identity_service.audit.tables import AuditEntry
from servicekit.db import Tx


async def add(tx: Tx, **values: Any) -> None:
    """Inserts an entry."""
    await tx.session.execute(insert(AuditEntry).values(**values))
