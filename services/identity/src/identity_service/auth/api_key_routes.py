"""`/api/v1/auth/api-keys`."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from identity_service import errors
from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.schemas import ApiKeyOut, ApiKeyWithSecretOut, CreateApiKey, MessageOut, RotateApiKey
from servicekit.auth import CurrentUser
from servicekit.http import answer_not_kept, problems


def router(api_keys: ApiKeyService) -> APIRouter:
    """The own API keys."""
    routes = APIRouter(prefix="/api/v1/auth/api-keys", tags=["auth"])

    @routes.post("", status_code=201, responses=problems(errors.TOO_MANY_API_KEYS, errors.ORGANIZATION_NOT_FOUND))
    @answer_not_kept
    async def create_api_key(body: CreateApiKey, user: CurrentUser) -> ApiKeyWithSecretOut:
        """Make an API key; the secret is shown this once."""
        return await api_keys.create_api_key(user, body)

    @routes.post("/{key_id}/rotate", status_code=201, responses=problems(errors.API_KEY_NOT_FOUND))
    @answer_not_kept
    async def rotate_api_key(key_id: UUID, user: CurrentUser, body: RotateApiKey | None = None) -> ApiKeyWithSecretOut:
        """Make a successor of a key; the old one works on for a while. The secret is shown this once."""
        return await api_keys.rotate_api_key(user, str(key_id), (body or RotateApiKey()).grace_hours)

    @routes.get("")
    async def list_api_keys(user: CurrentUser) -> list[ApiKeyOut]:
        """The own API keys, newest first."""
        return await api_keys.list_api_keys(user)

    @routes.delete("/{key_id}", responses=problems(errors.API_KEY_NOT_FOUND))
    async def end_api_key(key_id: UUID, user: CurrentUser) -> MessageOut:
        """End an API key."""
        await api_keys.end_api_key(user, str(key_id))
        return MessageOut(message="The key was ended.")

    return routes
