"""Pure rules of accounts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UserFilters:
    """What a list of accounts is narrowed to. `search`: how the address or the name begins, in any case."""

    search: str | None = None
    waitlist_status: str | None = None
    is_active: bool | None = None
    is_super_admin: bool | None = None


def placeholder(user_id: str) -> str:
    """What stands in the place of the address of an erased account."""
    return f"{user_id}@deleted.invalid"
