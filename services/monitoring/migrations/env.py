"""Alembic's environment of this service."""

from __future__ import annotations

import monitoring_service.alerts.tables
import monitoring_service.anomalies.tables
import monitoring_service.event_streams.tables
import monitoring_service.replica  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
