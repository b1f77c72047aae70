"""Alembic's environment of this service."""

from __future__ import annotations

import monitoring_service.events.tables  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
