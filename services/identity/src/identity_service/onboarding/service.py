"""Use cases of `/onboarding`."""

from __future__ import annotations

from typing import Any

from identity_service.audit import service as audit
from identity_service.errors import USER_NOT_FOUND
from identity_service.onboarding import rules, store
from identity_service.onboarding.schemas import Complete, DetectedOut, DetectOut, SetStep, StatusOut, Sync
from identity_service.onboarding.tables import Onboarding
from identity_service.users import service as users
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.errors import invalid

FREE_TIER = "free"


class OnboardingService:
    """Progress of newcomers; detection reads this service's own tables and replicas only."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def status(self, user_id: str) -> StatusOut:
        """Where the user stands; the first call makes the row."""
        async with self._db.reader() as tx:
            row = await store.find(tx, user_id)
        if row is None:
            async with self._db.uow() as tx:
                await self._require(tx, user_id)
                row = await store.locked(tx, user_id)
        return StatusOut.of(row)

    async def own(self, principal: Principal) -> StatusOut | None:
        """The progress for a data export; None where there is none."""
        async with self._db.reader() as tx:
            row = await store.find(tx, principal.user_id)
        return StatusOut.of(row) if row is not None else None

    async def set_step(self, user_id: str, body: SetStep) -> StatusOut:
        """Goes to another step; the one before counts as done."""
        async with self._db.uow() as tx:
            row = await self._locked(tx, user_id)
            changed = await self._save(
                tx,
                row,
                current_step=body.step,
                completed_steps=rules.united(row.completed_steps, [row.current_step]),
                completed_checklist_items=rules.united(row.completed_checklist_items, [row.current_step]),
                data=rules.merged(row.data, body.data),
            )
            return tx.result(StatusOut.of(changed))

    async def complete(self, user_id: str, body: Complete) -> StatusOut:
        """Ends the onboarding. The first end counts: a repetition does not move `completed_at`."""
        async with self._db.uow() as tx:
            row = await self._locked(tx, user_id)
            changed = await self._save(
                tx,
                row,
                current_step=rules.LAST_STEP,
                completed_steps=rules.united(row.completed_steps, [rules.LAST_STEP]),
                completed_at=row.completed_at or utc_now(),
                data=rules.merged(row.data, body.data),
            )
            return tx.result(StatusOut.of(changed))

    async def sync(self, user_id: str, body: Sync) -> StatusOut:
        """Takes what a client brings, if it knew the state as it stands; else answers with the state unchanged.

        Lists are united and data is merged, so that nothing noted on either side is lost.
        """
        async with self._db.uow() as tx:
            row = await self._locked(tx, user_id)
            if body.local_sync_version != row.sync_version:
                return StatusOut.of(row)
            changed = await self._save(
                tx,
                row,
                current_step=body.current_step,
                completed_steps=rules.united(row.completed_steps, body.completed_steps),
                completed_checklist_items=rules.united(row.completed_checklist_items, body.completed_checklist_items),
                data=rules.merged(row.data, body.data),
            )
            return tx.result(StatusOut.of(changed))

    async def reset(self, user_id: str, by: Principal) -> StatusOut:
        """Starts again from the first step; by a super admin it is recorded. Raises `identity.user_not_found`."""
        async with self._db.uow() as tx:
            row = await self._locked(tx, user_id)
            changed = await store.change(
                tx,
                row.user_id,
                current_step=rules.FIRST_STEP,
                completed_steps=[],
                completed_checklist_items=[],
                completed_at=None,
                data={},
            )
            if by.user_id != user_id:
                await audit.record(tx, "onboarding.reset", actor_id=by.user_id, subject_id=user_id)
            return tx.result(StatusOut.of(changed))

    async def detect(self, principal: Principal) -> DetectOut:
        """What the user has already: GitHub, organization, repository, plan."""
        async with self._db.reader() as tx:
            found = await store.found(tx, principal.user_id, FREE_TIER)
        github = {"username": found.github} if found.github is not None else None
        organization = {"id": found.organization[0], "name": found.organization[1]} if found.organization else None
        repository = _repository(*found.repository) if found.repository is not None else None
        plan = {"plan": found.plan, "status": "active"} if found.plan is not None else None
        things = {"github": github, "organization": organization, "repo": repository, "plan": plan}
        return DetectOut(
            github=DetectedOut.of(github),
            organization=DetectedOut.of(organization),
            repo=DetectedOut.of(repository),
            plan=DetectedOut.of(plan),
            suggested_step=rules.suggested_step({name: thing is not None for name, thing in things.items()}),
        )

    async def _require(self, tx: Tx, user_id: str) -> None:
        if await users.find(tx, user_id) is None:
            raise USER_NOT_FOUND()

    async def _locked(self, tx: Tx, user_id: str) -> Onboarding:
        await self._require(tx, user_id)
        return await store.locked(tx, user_id)

    async def _save(self, tx: Tx, row: Onboarding, **values: Any) -> Onboarding:
        problem = rules.problem_of(
            values["data"],
            values["completed_steps"],
            values.get("completed_checklist_items", row.completed_checklist_items),
        )
        if problem is not None:
            raise invalid("data", problem)
        return await store.change(tx, row.user_id, **values)


async def erase(tx: Tx, user_id: str) -> None:
    """Deletes the progress of an account that is erased."""
    await store.remove(tx, user_id)


def _repository(project_id: str, owner: str | None, name: str | None, url: str) -> dict[str, Any]:
    """A repository that is not at GitHub is named by the last part of its URL and has no owner."""
    return {
        "owner": owner or "",
        "name": name or url.rstrip("/").rpartition("/")[2].removesuffix(".git"),
        "project_id": project_id,
    }
