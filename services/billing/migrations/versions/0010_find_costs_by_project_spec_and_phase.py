"""Find the costs of a project, of a spec and of a phase by an index.

Revision: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing but speed changes."""
    with op.get_context().autocommit_block():
        # All organizations have the same phases.
        columns = {"project": ["project_id"], "spec": ["spec_id"], "phase": ["organization_id", "phase_id"]}
        for name, indexed in columns.items():
            # An attempt that was broken off leaves an index that is not valid.
            op.drop_index(f"ix_cost_records_{name}", "cost_records", if_exists=True, postgresql_concurrently=True)
            op.create_index(f"ix_cost_records_{name}", "cost_records", indexed, postgresql_concurrently=True)


def downgrade() -> None:
    raise RuntimeError("the code before works with this schema, too: there is nothing to take back")
