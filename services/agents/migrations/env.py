"""Migrations of the agents database."""

import agents_service.agents.tables
import agents_service.ingest.tables
import agents_service.sandboxes.tables  # noqa: F401
from servicekit.db import Base, alembic_env

alembic_env.run(Base.metadata)
