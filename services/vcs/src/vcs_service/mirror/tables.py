"""Tables of repositories and branches."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from servicekit.db import Base


class Repository(Base):
    """The repository of a project. States: mirroring, ready, failed. `due_at` is when the mirror wants a fetch."""

    __tablename__ = "repositories"
    __table_args__ = (
        Index("ix_repositories_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_repositories_organization", "organization_id"),
    )

    project_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    url: Mapped[str]
    default_branch: Mapped[str] = mapped_column(server_default=text("''"))
    state: Mapped[str] = mapped_column(server_default=text("'mirroring'"))
    error: Mapped[str | None]
    head_sha: Mapped[str | None]
    github_owner: Mapped[str | None]
    github_repo: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Branch(Base):
    """The branch of one attempt at a task. States: started, finished, merged, conflicted."""

    __tablename__ = "branches"
    __table_args__ = (
        Index("ix_branches_project", "project_id", "created_at"),
        Index("ix_branches_ticket", "ticket_id"),
    )

    task_id: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    organization_id: Mapped[str]
    ticket_id: Mapped[str]
    spec_id: Mapped[str | None]
    sandbox_id: Mapped[str]
    agent_id: Mapped[str | None]
    branch: Mapped[str]
    base_branch: Mapped[str]
    base_sha: Mapped[str]
    head_sha: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'started'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class TicketBranch(Base):
    """The branch of a ticket, to which sandboxes of its tasks may push. States: open, finished, merged."""

    __tablename__ = "ticket_branches"
    __table_args__ = (Index("uq_ticket_branches_branch", "project_id", "branch", unique=True),)

    ticket_id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str]
    organization_id: Mapped[str]
    branch: Mapped[str]
    base_sha: Mapped[str]
    head_sha: Mapped[str | None]
    merge_sha: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'open'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
