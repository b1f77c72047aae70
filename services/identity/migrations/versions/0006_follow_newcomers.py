"""Follow newcomers: their progress, and what their organizations have.

Revision: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    empty = sa.text("'{}'::text[]")
    op.create_table(
        "user_onboarding",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("current_step", sa.Text(), server_default=sa.text("'welcome'"), nullable=False),
        sa.Column("completed_steps", postgresql.ARRAY(sa.TEXT()), server_default=empty, nullable=False),
        sa.Column("completed_checklist_items", postgresql.ARRAY(sa.TEXT()), server_default=empty, nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("sync_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_onboarding_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_onboarding")),
    )
    op.create_table(
        "replica_projects",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_replica_projects")),
    )
    op.create_index(
        "ix_replica_projects_organization", "replica_projects", ["organization_id", "project_id"], unique=False
    )
    op.create_table(
        "replica_repositories",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("github_owner", sa.Text(), nullable=True),
        sa.Column("github_repo", sa.Text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_replica_repositories")),
    )
    op.create_index(
        "ix_replica_repositories_organization", "replica_repositories", ["organization_id", "project_id"], unique=False
    )
    op.create_table(
        "replica_plans",
        sa.Column("organization_id", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_replica_plans")),
    )
