"""`/api/v1/onboarding`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from identity_service import errors
from identity_service.onboarding.schemas import Complete, DetectOut, SetStep, StatusOut, Sync
from identity_service.onboarding.service import OnboardingService
from servicekit.auth import CurrentUser
from servicekit.http import problems


def router(onboarding: OnboardingService) -> APIRouter:
    """The newcomer's progress."""
    routes = APIRouter(prefix="/api/v1/onboarding", tags=["onboarding"])
    gone = problems(errors.USER_NOT_FOUND)

    @routes.get("/status", responses=gone)
    async def get_status(user: CurrentUser) -> StatusOut:
        """Where the caller stands."""
        return await onboarding.status(user.user_id)

    @routes.post("/step", responses=gone)
    async def set_step(body: SetStep, user: CurrentUser) -> StatusOut:
        """Go to another step; the one before counts as done."""
        return await onboarding.set_step(user.user_id, body)

    @routes.post("/complete", responses=gone)
    async def complete(body: Complete, user: CurrentUser) -> StatusOut:
        """End the onboarding."""
        return await onboarding.complete(user.user_id, body)

    @routes.post("/reset", responses=gone)
    async def reset(user: CurrentUser, admin_override: bool = False) -> StatusOut:
        """Start the own onboarding again; `admin_override` changes nothing."""
        return await onboarding.reset(user.user_id, user)

    @routes.get("/detect")
    async def detect(user: CurrentUser) -> DetectOut:
        """What the caller has already, and the step that is missing next."""
        return await onboarding.detect(user)

    @routes.post("/sync", responses=gone)
    async def sync(body: Sync, user: CurrentUser) -> StatusOut:
        """Bring what was noted elsewhere; a state that is not the latest changes nothing."""
        return await onboarding.sync(user.user_id, body)

    @routes.post("/admin/reset/{user_id}", responses=gone)
    async def admin_reset(user_id: UUID, user: CurrentUser) -> StatusOut:
        """Start somebody's onboarding again; for platform super admins."""
        return await onboarding.reset(str(user_id), user)

    return routes
