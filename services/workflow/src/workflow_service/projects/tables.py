"""Projects.

Indexes: a list of an organization reads `ix_projects_organization_id_created_at_id` backwards; a name is unique in its
organization; the binding job reads the few rows of `ix_projects_to_bind`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Project(Base):
    """One project. `repository_state`: none, binding, mirroring, ready or failed.

    `repository_version`: the version at vcs of the mirror that branch and head are from.
    """

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("organization_id", "name"),
        CheckConstraint(
            "repository_state IN ('none', 'binding', 'mirroring', 'ready', 'failed')", name="repository_state"
        ),
        CheckConstraint("status IN ('active', 'paused', 'archived', 'completed')", name="status"),
        Index("ix_projects_organization_id_created_at_id", "organization_id", "created_at", "id"),
        Index(
            "ix_projects_to_bind", "bind_after", postgresql_where=text("repository_state IN ('binding', 'mirroring')")
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    created_by: Mapped[str | None]
    name: Mapped[str]
    description: Mapped[str | None]
    github_owner: Mapped[str | None]
    github_repo: Mapped[str | None]
    github_connected: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    default_phase_id: Mapped[str] = mapped_column(server_default="PHASE_BACKLOG")
    status: Mapped[str] = mapped_column(server_default="active")
    autonomous_execution_enabled: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    max_concurrent_tasks: Mapped[int | None] = mapped_column(Integer)
    repository_url: Mapped[str | None]
    default_branch: Mapped[str | None]
    repository_state: Mapped[str] = mapped_column(server_default="none")
    repository_error: Mapped[str | None]
    head_sha: Mapped[str | None]
    repository_version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    bind_attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    bind_after: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    updated_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
