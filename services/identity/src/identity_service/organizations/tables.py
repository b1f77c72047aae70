"""Tables of organizations, roles and memberships."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Organization(Base):
    """A tenant."""

    __tablename__ = "organizations"
    __table_args__ = (
        Index("uq_organizations_slug", "slug", unique=True),
        CheckConstraint("slug ~ '^[a-z0-9-]+$'", name="slug_form"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str]
    description: Mapped[str | None]
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    billing_email: Mapped[str | None]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    max_concurrent_agents: Mapped[int] = mapped_column(server_default=text("5"))
    max_agent_runtime_hours: Mapped[float] = mapped_column(server_default=text("100"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Role(Base):
    """A named set of permissions; without an organization it is a system role, the same in every organization."""

    __tablename__ = "roles"
    __table_args__ = (
        Index("uq_roles_system_name", "name", unique=True, postgresql_where=text("organization_id IS NULL")),
        Index("uq_roles_organization_name", "organization_id", "name", unique=True),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    name: Mapped[str]
    description: Mapped[str | None]
    permissions: Mapped[list[str]] = mapped_column(ARRAY(TEXT))
    is_system: Mapped[bool] = mapped_column(server_default=text("false"))
    inherits_from: Mapped[str | None] = mapped_column(ForeignKey("roles.id", ondelete="SET NULL"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Membership(Base):
    """Who belongs to an organization: a user or an agent, with one role."""

    __tablename__ = "organization_memberships"
    __table_args__ = (
        CheckConstraint("num_nonnulls(user_id, agent_id) = 1", name="one_member"),
        Index("uq_memberships_user", "user_id", "organization_id", unique=True),
        Index("uq_memberships_agent", "agent_id", "organization_id", unique=True),
        Index("ix_memberships_organization", "organization_id", "joined_at"),
        Index("ix_memberships_role", "role_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    agent_id: Mapped[str | None]
    role_id: Mapped[str] = mapped_column(ForeignKey("roles.id"))
    invited_by: Mapped[str | None]
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MembershipVersion(Base):
    """The version of each user's membership in each organization; it outlives a removal, so that it only grows."""

    __tablename__ = "membership_versions"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Invitation(Base):
    """An offer of membership, bound to an address. The token that its mail carries is stored as SHA-256 only.

    States: pending, accepted, declined, revoked, expired. A pending one whose `expires_at` has passed cannot be
    accepted; a job makes it `expired`.
    """

    __tablename__ = "invitations"
    __table_args__ = (
        Index(
            "uq_invitations_pending",
            "organization_id",
            "email",
            unique=True,
            postgresql_where=text("state = 'pending'"),
        ),
        Index("uq_invitations_digest", "digest", unique=True),
        Index("ix_invitations_organization", "organization_id", "id"),
        Index("ix_invitations_email", "email", postgresql_where=text("state = 'pending'")),
        Index("ix_invitations_role", "role_id"),
        Index("ix_invitations_expiring", "expires_at", postgresql_where=text("state = 'pending'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    email: Mapped[str]
    role_id: Mapped[str] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"))
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    invited_by: Mapped[str | None]
    sent_count: Mapped[int] = mapped_column(server_default=text("1"))
    sent_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
    closed_by: Mapped[str | None]
