"""Requests and answers of invitations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from identity_service.organizations import rules
from identity_service.organizations.tables import Invitation, Organization, Role
from identity_service.users.tables import User


def _normal(address: str) -> str:
    return address.strip().lower()


Address = Annotated[EmailStr, AfterValidator(_normal), Field(max_length=255)]


class CreateInvitation(BaseModel):
    """Whom to invite, and as what."""

    email: Address
    role_id: UUID
    expires_in_days: Annotated[int, Field(ge=1, le=30)] = rules.INVITATION_DAYS


class InvitationToken(BaseModel):
    """The secret of the mailed link."""

    token: Annotated[str, Field(min_length=20, max_length=200)]


class InvitationOut(BaseModel):
    """An invitation. `state`: pending, expired, accepted, declined, revoked."""

    id: str
    organization_id: str
    email: str
    role_id: str
    role_name: str
    state: str
    invited_by: str | None
    sent_count: int
    sent_at: datetime
    expires_at: datetime
    created_at: datetime
    closed_at: datetime | None

    @classmethod
    def of(cls, row: Invitation, role: Role, now: datetime) -> InvitationOut:
        """From the rows."""
        values = {name: getattr(row, name) for name in cls.model_fields if name not in ("state", "role_name")}
        return cls(**values, state=rules.invitation_state(row.state, row.expires_at, now), role_name=role.name)


class SentInvitationOut(InvitationOut):
    """An invitation just sent. `accept_url` is filled only where no mail server delivers it: hand it over yourself."""

    accept_url: str | None


class InvitationPage(BaseModel):
    """Invitations, newest first."""

    items: list[InvitationOut]
    next_page_token: str | None


class InvitedOut(BaseModel):
    """An invitation as the invited person sees it."""

    id: str
    organization_id: str
    organization_name: str
    organization_slug: str
    role_name: str
    email: str
    inviter_name: str | None
    expires_at: datetime

    @classmethod
    def of(cls, row: Invitation, organization: Organization, role: Role, inviter: User | None) -> InvitedOut:
        """From the rows."""
        return cls(
            id=row.id,
            organization_id=organization.id,
            organization_name=organization.name,
            organization_slug=organization.slug,
            role_name=role.name,
            email=row.email,
            inviter_name=inviter.full_name if inviter is not None else None,
            expires_at=row.expires_at,
        )


class InvitedPage(BaseModel):
    """The open invitations of an address, newest first."""

    items: list[InvitedOut]
