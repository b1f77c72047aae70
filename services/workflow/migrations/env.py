"""Alembic's environment of this service."""

from __future__ import annotations

import workflow_service.coordination.tables
import workflow_service.engine.tables
import workflow_service.projects.tables
import workflow_service.queue.tables
import workflow_service.replica
import workflow_service.results.tables
import workflow_service.specs.tables  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
