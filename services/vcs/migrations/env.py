"""Alembic's environment of this service."""

from __future__ import annotations

import vcs_service.commits.tables
import vcs_service.merging.tables
import vcs_service.mirror.tables
import vcs_service.replica  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
