"""Chain the audit log.

Revision: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_heads",
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("chain", name=op.f("pk_audit_heads")),
    )
    op.add_column("audit_log", sa.Column("subject_id", sa.Text(), nullable=True))
    op.add_column("audit_log", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("audit_log", sa.Column("digest", sa.LargeBinary(), nullable=True))
    op.execute("UPDATE audit_log SET subject_id = actor_id WHERE subject_id IS NULL")
    op.create_index("ix_audit_log_subject", "audit_log", ["subject_id", "id"], unique=False)
    op.create_index(
        "ix_audit_log_unsealed", "audit_log", ["id"], unique=False, postgresql_where=sa.text("position IS NULL")
    )
    op.create_index(
        "uq_audit_log_position",
        "audit_log",
        [sa.text("coalesce(organization_id, '')"), "position"],
        unique=True,
        postgresql_where=sa.text("position IS NOT NULL"),
    )
