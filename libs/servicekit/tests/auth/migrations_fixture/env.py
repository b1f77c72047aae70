"""Migrations of the kit's tests of access."""

from servicekit.db import Base, alembic_env

alembic_env.run(Base.metadata)
