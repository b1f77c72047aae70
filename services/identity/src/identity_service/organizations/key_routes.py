"""`/api/v1/organizations/{id}/api-keys`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from identity_service import errors
from identity_service.organizations.key_schemas import MemberApiKeyPage
from identity_service.organizations.key_service import KeyService
from identity_service.organizations.schemas import MessageOut
from servicekit.auth import CurrentUser
from servicekit.http import Keyset, problems


def router(keys: KeyService) -> APIRouter:
    """Members' keys for the organization."""
    routes = APIRouter(prefix="/api/v1/organizations", tags=["organizations"])
    missing = errors.ORGANIZATION_NOT_FOUND

    @routes.get("/{org_id}/api-keys", responses=problems(missing))
    async def list_member_api_keys(org_id: UUID, user: CurrentUser, page: Keyset) -> MemberApiKeyPage:
        """The API keys that members made for the organization, newest first."""
        return await keys.page(user, str(org_id), page)

    @routes.delete(
        "/{org_id}/api-keys/{key_id}", responses=problems(missing, errors.API_KEY_NOT_FOUND, errors.ROLE_EXCEEDS_OWN)
    )
    async def end_member_api_key(org_id: UUID, key_id: UUID, user: CurrentUser) -> MessageOut:
        """End a member's API key."""
        await keys.end(user, str(org_id), str(key_id))
        return MessageOut(message="The key was ended.")

    return routes
