"""Requests and answers of `/users`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, HttpUrl, StringConstraints, TypeAdapter

from identity_service.auth.schemas import UserOut as UserOut
from identity_service.directory import rules
from identity_service.directory.tables import AccountDeletion
from identity_service.organizations.schemas import OrganizationSummary
from identity_service.users.tables import User

_URL = TypeAdapter(HttpUrl)


def _https(text: str) -> str:
    url = _URL.validate_python(text)
    if url.scheme != "https":
        raise ValueError("must be an https address")
    return str(url)


def _zone(name: str) -> str:
    if not rules.is_timezone(name):
        raise ValueError("must be a time zone of the IANA database, such as Europe/Berlin")
    return name


PictureUrl = Annotated[str, Field(max_length=2000), AfterValidator(_https)]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_zone)]
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)]


class UpdateProfile(BaseModel):
    """What may change; absent means unchanged, null clears. `attributes` are merged, null removes a key."""

    full_name: Annotated[str, Field(max_length=255)] | None = None
    department: Annotated[str, Field(max_length=100)] | None = None
    avatar_url: PictureUrl | None = None
    attributes: dict[str, Any] | None = None


class Preferences(BaseModel):
    """How the user wants to see the product; null where he never said."""

    timezone: Zone | None = None
    language: Language | None = None
    theme: Literal["system", "light", "dark"] | None = None

    @classmethod
    def of(cls, user: User) -> Preferences:
        """From the row; a value that an earlier client wrote and that is none of ours counts as not said."""
        stored = user.attributes or {}
        return cls.model_construct(**{name: _valid(name, stored.get(name)) for name in rules.PREFERENCES})


def _valid(name: str, value: Any) -> Any:
    try:
        return getattr(Preferences.model_validate({name: value}), name)
    except ValueError:
        return None


class ColleagueOut(BaseModel):
    """Somebody of one's own organizations."""

    id: str
    full_name: str | None
    avatar_url: str | None
    department: str | None

    @classmethod
    def of(cls, user: User) -> Self:
        """From the row."""
        return cls(id=user.id, full_name=user.full_name, avatar_url=user.avatar_url, department=user.department)


class OwnOrganizationsOut(BaseModel):
    """The caller and his organizations."""

    id: str
    email: str
    full_name: str | None
    organizations: list[OrganizationSummary]


class PermissionsOut(BaseModel):
    """What the caller may do in an organization, inherited permissions included."""

    organization_id: str
    role: str
    permissions: list[str]


class LimitsOut(BaseModel):
    """What an organization may use, and has used in this month.

    `plan`: as billing named it last; `free` until it did. `max_concurrent_agents`, `max_agent_runtime_hours`: its own
    settings, which claims respect beside the plan's. `max_task_duration_minutes`: the longest time limit a task may
    have. `monthly_agent_hours_limit`: the hours after which nothing more is begun in a month.
    `monthly_agent_hours_used`: hours of ended sandboxes.
    """

    organization_id: str
    plan: str
    max_concurrent_agents: int
    max_agent_runtime_hours: float
    max_task_duration_minutes: int
    monthly_agent_hours_limit: float | None
    monthly_agent_hours_used: float
    billing_cycle_resets_at: datetime | None


class UserPage(BaseModel):
    """Accounts, newest first."""

    items: list[UserOut]
    next_page_token: str | None


class UpdateUser(BaseModel):
    """What a platform super admin may change of an account."""

    is_active: bool | None = None
    is_super_admin: bool | None = None
    is_verified: bool | None = None
    waitlist_status: Literal["pending", "approved", "none"] | None = None


class DeleteAccount(BaseModel):
    """The password, where the account has one."""

    current_password: Annotated[str, Field(max_length=1000)] | None = None


class DeletionOut(BaseModel):
    """An account that will be erased; until `due_at` its user may take it back."""

    requested_at: datetime
    due_at: datetime

    @classmethod
    def of(cls, row: AccountDeletion) -> DeletionOut:
        """From the row."""
        return cls(requested_at=row.requested_at, due_at=row.due_at)
