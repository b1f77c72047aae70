"""Answers about members' API keys."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from identity_service.auth.tables import ApiKey


class MemberApiKeyOut(BaseModel):
    """A member's API key as the administrators of its organization see it."""

    id: str
    user_id: str
    name: str
    key_prefix: str
    scopes: list[str]
    is_active: bool
    last_used_at: datetime | None
    expires_at: datetime | None
    created_at: datetime

    @classmethod
    def of(cls, key: ApiKey) -> MemberApiKeyOut:
        """From the row."""
        return cls(**{name: getattr(key, name) for name in cls.model_fields})


class MemberApiKeyPage(BaseModel):
    """API keys of an organization, newest first."""

    items: list[MemberApiKeyOut]
    next_page_token: str | None
