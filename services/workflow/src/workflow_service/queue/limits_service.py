"""The limits of organizations, as their owners told them: plan and used hours by billing, the rest by identity."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import AppError
from workflow_service.clients import BillingClient, PlanLimits
from workflow_service.queue import limits_store
from workflow_service.queue.limits_rules import OrganizationLimits
from workflow_service.queue.service import QueueService
from workflow_service.settings import Settings

log = structlog.get_logger(__name__)

# Plan and used hours may be as old as this: an organization can overrun its hours by what it uses in a minute.
LIMIT_AGE_S = 60.0


class LimitService:
    """Limits by organization."""

    def __init__(self, db: Database, queue: QueueService, billing: BillingClient, settings: Settings) -> None:
        self._db = db
        self._queue = queue
        self._billing = billing
        self._settings = settings

    async def current(self, organizations: Sequence[str]) -> tuple[list[OrganizationLimits], dict[str, PlanLimits]]:
        """The limits of each organization, and those that billing told just now, for `save`. In no transaction."""
        async with self._db.reader() as tx:
            known = await limits_store.limits(tx, organizations)
        stale = [one for one in organizations if known[one].age_s > LIMIT_AGE_S]
        fresh: dict[str, PlanLimits] = {}
        if stale:
            try:
                fresh = await self._billing.limits(stale)
            except AppError as error:
                # Work goes on with the limit told last, or the default: billing's absence must not stop the queue.
                log.info("limits_not_refreshed", code=error.code)
        return [self._of(known[one], fresh.get(one)) for one in organizations], fresh

    async def save(self, tx: Tx, fresh: dict[str, PlanLimits]) -> list[str]:
        """Remember what billing told; returns the organizations whose plan allows another number than before. Joins."""
        if not fresh:
            return []
        return await limits_store.save(
            tx, [(one, told.agents_limit, told.sandbox_ms_used, told.period_ends_at) for one, told in fresh.items()]
        )

    async def plan_told(self, tx: Tx, organization_id: str, tier: str, version: int) -> None:
        """Where an account has another plan, the claims that wait look again, and billing is asked for it. Joins."""
        if await limits_store.plan_changed(tx, organization_id, tier, version):
            await self._queue.room_changed(tx, organization_id)

    async def known(self, tx: Tx, organization_id: str) -> OrganizationLimits:
        """The limits as they were told last, without asking. Joins."""
        return self._of((await limits_store.limits(tx, [organization_id]))[organization_id], None)

    def _of(self, known: limits_store.Known, fresh: PlanLimits | None) -> OrganizationLimits:
        plan = fresh.agents_limit if fresh else known.agents_limit
        used, until = (
            (fresh.sandbox_ms_used, fresh.period_ends_at) if fresh else (known.sandbox_ms_used, known.period_ends_at)
        )
        return OrganizationLimits(
            plan=self._settings.default_agents_limit if plan is None else plan,
            own=known.max_concurrent_agents,
            hours=known.max_agent_runtime_hours,
            # Billing counts a new month from its first usage on.
            ms_used=used if used is not None and until is not None and until > utc_now() else 0,
        )
