"""Migrations of the kit's own test service."""

from servicekit.db import Base, alembic_env

alembic_env.run(Base.metadata)
