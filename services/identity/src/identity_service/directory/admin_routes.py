"""`/api/v1/users` for platform super admins."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from identity_service import errors
from identity_service.directory.admin_service import UserAdminService, UserFilters
from identity_service.directory.schemas import UpdateUser, UserOut, UserPage
from servicekit.auth import CurrentUser
from servicekit.http import Keyset, client_address, problems


async def _filters(
    search: Annotated[
        str | None, Query(min_length=1, max_length=255, description="how the address or the name begins")
    ] = None,
    waitlist_status: Literal["pending", "approved", "none"] | None = None,
    is_active: bool | None = None,
    is_super_admin: bool | None = None,
) -> UserFilters:
    return UserFilters(search, waitlist_status, is_active, is_super_admin)


def router(admin: UserAdminService) -> APIRouter:
    """Listing and changing accounts."""
    routes = APIRouter(prefix="/api/v1/users", tags=["users"])

    @routes.get("")
    async def list_users(
        user: CurrentUser, filters: Annotated[UserFilters, Depends(_filters)], page: Keyset
    ) -> UserPage:
        """All accounts, newest first."""
        return await admin.page(filters, page)

    @routes.patch("/{user_id}", responses=problems(errors.USER_NOT_FOUND, errors.NOT_ON_YOURSELF))
    async def update_user(user_id: UUID, body: UpdateUser, user: CurrentUser, request: Request) -> UserOut:
        """Suspend or let in, confirm, admit from the waiting list, make or unmake a super admin."""
        return await admin.update(user, str(user_id), body, client_address(request))

    return routes
