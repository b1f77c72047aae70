"""Keep identities at providers, sign-ins under way, and users' own keys.

Revision: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _moment(name: str, *, nullable: bool = False, default: bool = False) -> sa.Column[object]:
    server_default = sa.text("now()") if default else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=server_default, nullable=nullable)


def _of_a_user(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id"], ["users.id"], name=op.f(f"fk_{table}_user_id_users"), ondelete="CASCADE"
    )


def upgrade() -> None:
    op.create_table(
        "oauth_identities",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_user_id", sa.Text(), nullable=False),
        sa.Column("signs_in", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.TEXT()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("sealed_access_token", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_refresh_token", sa.LargeBinary(), nullable=True),
        _moment("access_expires_at", nullable=True),
        _moment("refreshing_until", nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        _moment("created_at", default=True),
        _moment("updated_at", default=True),
        _of_a_user("oauth_identities"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_identities")),
    )
    op.create_index(
        "uq_oauth_identities_provider_user",
        "oauth_identities",
        ["provider", "provider_user_id"],
        unique=True,
        postgresql_where=sa.text("signs_in"),
    )
    op.create_index("uq_oauth_identities_user_provider", "oauth_identities", ["user_id", "provider"], unique=True)
    op.create_table(
        "oauth_states",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("sealed_verifier", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("browser_digest", sa.LargeBinary(), nullable=False),
        _moment("expires_at"),
        _of_a_user("oauth_states"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_oauth_states")),
    )
    op.create_index("ix_oauth_states_expires_at", "oauth_states", ["expires_at"], unique=False)
    op.create_table(
        "user_credentials",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("is_default", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        _moment("last_used_at", nullable=True),
        _moment("created_at", default=True),
        _moment("updated_at", default=True),
        _of_a_user("user_credentials"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_credentials")),
    )
    op.create_index("uq_user_credentials_name", "user_credentials", ["user_id", "provider", "name"], unique=True)
    op.create_index(
        "uq_user_credentials_default",
        "user_credentials",
        ["user_id", "provider"],
        unique=True,
        postgresql_where=sa.text("is_default"),
    )


def downgrade() -> None:
    op.drop_table("user_credentials")
    op.drop_table("oauth_states")
    op.drop_table("oauth_identities")
