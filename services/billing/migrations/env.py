"""Alembic's environment of this service."""

from __future__ import annotations

import billing_service.costs.tables
import billing_service.ledger.tables  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
