"""The trail as its readers see it: `/organizations/{id}/audit`, `/users/me/audit`, `/users/{id}/audit`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from identity_service import errors
from identity_service.audit.schemas import AuditPage
from identity_service.audit.service import AuditService, Filters
from servicekit.auth import CurrentUser
from servicekit.http import Keyset, problems


async def _filters(
    action: Annotated[str | None, Query(max_length=100, description="exactly this action")] = None,
    actor_id: Annotated[str | None, Query(max_length=100, description="what this user did")] = None,
    since: Annotated[AwareDatetime | None, Query(description="from this moment on")] = None,
    until: Annotated[AwareDatetime | None, Query(description="before this moment")] = None,
) -> Filters:
    return Filters(action, actor_id, since, until)


Narrowed = Annotated[Filters, Depends(_filters)]


def router(audit: AuditService) -> APIRouter:
    """The lists of the trail."""
    routes = APIRouter(prefix="/api/v1", tags=["audit"])

    @routes.get("/organizations/{org_id}/audit", responses=problems(errors.ORGANIZATION_NOT_FOUND))
    async def list_organization_audit(org_id: UUID, user: CurrentUser, filters: Narrowed, page: Keyset) -> AuditPage:
        """What was done in an organization, newest first; its admins may read it."""
        return await audit.list_of_organization(user, str(org_id), filters, page)

    @routes.get("/users/me/audit")
    async def list_own_audit(user: CurrentUser, filters: Narrowed, page: Keyset) -> AuditPage:
        """What happened to the own account, newest first: sign-ins, failed ones, passwords, keys."""
        return await audit.list_of_account(user.user_id, filters, page)

    @routes.get("/users/{user_id}/audit", responses=problems(errors.USER_NOT_FOUND))
    async def list_user_audit(user_id: UUID, user: CurrentUser, filters: Narrowed, page: Keyset) -> AuditPage:
        """What happened to an account, newest first; for platform super admins, also after its deletion."""
        return await audit.list_of_any_account(str(user_id), filters, page)

    return routes
