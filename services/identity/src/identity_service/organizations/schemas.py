"""Requests and answers of `/organizations`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, EmailStr, Field, StringConstraints, model_validator

from identity_service.organizations import rules
from identity_service.organizations.tables import Membership, Organization, Role
from identity_service.users.tables import User

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$", min_length=1, max_length=255)]
Description = Annotated[str, Field(max_length=5000)]
BillingEmail = Annotated[EmailStr, Field(max_length=255)]
RoleName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Permission = Annotated[str, StringConstraints(pattern=rules.PERMISSION.pattern, max_length=100)]
Permissions = Annotated[list[Permission], Field(max_length=200)]


class CreateOrganization(BaseModel):
    """A new organization; its maker owns it."""

    name: Name
    slug: Slug
    description: Description | None = None
    billing_email: BillingEmail | None = None


class UpdateOrganization(BaseModel):
    """What may change; absent means unchanged, null clears description and billing_email.

    `settings` replaces the whole object.
    """

    name: Name | None = None
    description: Description | None = None
    billing_email: BillingEmail | None = None
    settings: dict[str, Any] | None = None
    max_concurrent_agents: Annotated[int, Field(ge=1, le=100)] | None = None
    max_agent_runtime_hours: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None

    def changes(self) -> dict[str, Any]:
        """Column → new value."""
        given = self.model_dump(exclude_unset=True)
        return {
            name: value
            for name, value in given.items()
            if value is not None or name in ("description", "billing_email")
        }


class TransferOwnership(BaseModel):
    """Who is the owner from now on. The caller becomes an admin unless `stay_owner`."""

    member_id: UUID
    stay_owner: bool = False


class AddMember(BaseModel):
    """A user or an agent, exactly one of both, with a role."""

    user_id: UUID | None = None
    agent_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    role_id: UUID

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.user_id is None) == (self.agent_id is None):
            raise ValueError("exactly one of user_id and agent_id is needed")
        return self


class ChangeMember(BaseModel):
    """Another role."""

    role_id: UUID


class CreateRole(BaseModel):
    """A role of this organization."""

    name: RoleName
    permissions: Permissions = []
    description: Description | None = None
    inherits_from: UUID | None = None
    organization_id: UUID | None = None


class UpdateRole(BaseModel):
    """What may change; absent means unchanged, null clears description and inherits_from."""

    name: RoleName | None = None
    description: Description | None = None
    permissions: Permissions | None = None
    inherits_from: UUID | None = None

    def changes(self) -> dict[str, Any]:
        """Column → new value."""
        given = self.model_dump(exclude_unset=True)
        changes = {
            name: value
            for name, value in given.items()
            if value is not None or name in ("description", "inherits_from")
        }
        if changes.get("inherits_from") is not None:
            changes["inherits_from"] = str(changes["inherits_from"])
        if "permissions" in changes:
            changes["permissions"] = sorted(set(changes["permissions"]))
        return changes


class OrganizationOut(BaseModel):
    """An organization."""

    id: str
    name: str
    slug: str
    description: str | None
    billing_email: str | None
    owner_id: str
    is_active: bool
    settings: dict[str, Any]
    max_concurrent_agents: int
    max_agent_runtime_hours: float
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Organization) -> OrganizationOut:
        """From the row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class OrganizationSummary(BaseModel):
    """An organization in the caller's list, with his role."""

    id: str
    name: str
    slug: str
    role: str
    is_active: bool


class MembershipOut(BaseModel):
    """A member; the last three fields are a user's, null for an agent."""

    id: str
    user_id: str | None
    agent_id: str | None
    organization_id: str
    role_id: str
    role_name: str
    joined_at: datetime
    email: str | None
    full_name: str | None
    avatar_url: str | None

    @classmethod
    def of(cls, row: Membership, role: Role, user: User | None) -> MembershipOut:
        """From the rows."""
        return cls(
            id=row.id,
            user_id=row.user_id,
            agent_id=row.agent_id,
            organization_id=row.organization_id,
            role_id=row.role_id,
            role_name=role.name,
            joined_at=row.joined_at,
            email=user.email if user is not None else None,
            full_name=user.full_name if user is not None else None,
            avatar_url=user.avatar_url if user is not None else None,
        )


class RoleOut(BaseModel):
    """A role."""

    id: str
    organization_id: str | None
    name: str
    description: str | None
    permissions: list[str]
    is_system: bool
    inherits_from: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: Role) -> RoleOut:
        """From the row."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class OwnerInfo(BaseModel):
    """Who owns an organization, for platform operators."""

    organization: dict[str, str | None]
    owner: dict[str, str | None] | None
    effective_billing_email: str | None

    @classmethod
    def of(cls, row: Organization, owner: User | None) -> OwnerInfo:
        """From the rows; without a billing address the owner's counts."""
        return cls(
            organization={"id": row.id, "name": row.name, "slug": row.slug, "billing_email": row.billing_email},
            owner={"id": owner.id, "email": owner.email, "full_name": owner.full_name} if owner else None,
            effective_billing_email=row.billing_email or (owner.email if owner else None),
        )


class MessageOut(BaseModel):
    """One sentence."""

    message: str
