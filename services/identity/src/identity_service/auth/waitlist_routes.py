"""`/api/v1/auth/waitlist`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request

from identity_service import errors
from identity_service.auth.schemas import WaitlistAllApprovedOut, WaitlistApprovedOut, WaitlistOut
from identity_service.auth.waitlist_service import WaitlistService
from servicekit.auth import CurrentUser
from servicekit.http import client_address, problems


def router(waitlist: WaitlistService) -> APIRouter:
    """The waiting list, for platform administrators."""
    routes = APIRouter(prefix="/api/v1/auth/waitlist", tags=["auth"])

    @routes.get("")
    async def list_waitlist(
        status_filter: Literal["pending", "approved", "none"] = "pending",
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> WaitlistOut:
        """Accounts in one state of the waiting list, oldest first."""
        return await waitlist.page(status_filter, limit, offset)

    @routes.post("/approve-all")
    async def approve_all(user: CurrentUser, request: Request) -> WaitlistAllApprovedOut:
        """Admit everybody who waits."""
        count = await waitlist.approve_all(user, client_address(request))
        return WaitlistAllApprovedOut(message=f"Admitted {count} accounts.", count=count)

    @routes.post("/{user_id}/approve", responses=problems(errors.USER_NOT_FOUND))
    async def approve(user_id: UUID, user: CurrentUser, request: Request) -> WaitlistApprovedOut:
        """Admit one account."""
        return await waitlist.approve(user, str(user_id), client_address(request))

    return routes
