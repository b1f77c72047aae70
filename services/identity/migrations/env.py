"""Alembic's environment of this service."""

from __future__ import annotations

import identity_service.audit.tables
import identity_service.auth.tables
import identity_service.credentials.tables
import identity_service.directory.tables
import identity_service.mail.tables
import identity_service.oauth.tables
import identity_service.onboarding.tables
import identity_service.organizations.tables
import identity_service.replica
import identity_service.tokens.tables
import identity_service.users.tables  # noqa: F401
from servicekit.db import alembic_env

alembic_env.run()
