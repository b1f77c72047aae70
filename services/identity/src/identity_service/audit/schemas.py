"""Answers of the audit lists."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from identity_service.audit.tables import AuditEntry


class AuditEntryOut(BaseModel):
    """One action. `position` and `digest` (hex) are its place in the chain, null in the second before the sealing."""

    id: str
    action: str
    actor_type: str
    actor_id: str | None
    subject_id: str | None
    organization_id: str | None
    address: str | None
    details: dict[str, Any]
    created_at: datetime
    position: int | None
    digest: str | None

    @classmethod
    def of(cls, row: AuditEntry) -> AuditEntryOut:
        """From the row."""
        values = {name: getattr(row, name) for name in cls.model_fields if name != "digest"}
        return cls(**values, digest=row.digest.hex() if row.digest is not None else None)


class AuditPage(BaseModel):
    """Entries, newest first."""

    items: list[AuditEntryOut]
    next_page_token: str | None
