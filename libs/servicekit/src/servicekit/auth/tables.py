"""The replicas of identity's facts that every service but identity keeps: memberships and revocations.

Written only by the kit's own consumers and rebuild; read by the authenticator. `version` is the membership's version at
identity: an older event never overwrites a newer row. A member who left stays as `active = false`, so that a late event
of the time before finds a higher version.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Boolean, DateTime, Index, Text, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db.base import Base


class ReplicaMembership(Base):
    """A user's role and permissions in an organization, as identity last said."""

    __tablename__ = "replica_memberships"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    organization_id: Mapped[str] = mapped_column(Text, primary_key=True)
    role: Mapped[str] = mapped_column(Text)
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    active: Mapped[bool] = mapped_column(Boolean)
    version: Mapped[int] = mapped_column(BigInteger)


class ReplicaRevocation(Base):
    """Credentials of a principal (or of one session: type `session`) issued before `not_before` are dead."""

    __tablename__ = "replica_revocations"
    __table_args__ = (Index("ix_replica_revocations_updated_at", "updated_at"),)

    principal_type: Mapped[str] = mapped_column(Text, primary_key=True)
    principal_id: Mapped[str] = mapped_column(Text, primary_key=True)
    not_before: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
