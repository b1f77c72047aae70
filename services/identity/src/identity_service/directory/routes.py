"""`/api/v1/users/me` and colleagues."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from identity_service import errors
from identity_service.directory.deletion_service import DeletionService
from identity_service.directory.export_service import ExportService
from identity_service.directory.schemas import (
    ColleagueOut,
    DeleteAccount,
    DeletionOut,
    LimitsOut,
    OwnOrganizationsOut,
    PermissionsOut,
    Preferences,
    UpdateProfile,
    UserOut,
)
from identity_service.directory.service import ProfileService
from servicekit.auth import CurrentUser
from servicekit.http import body_limit, client_address, problems

_AVATAR_BYTES = 524_288
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


def router(profiles: ProfileService, deletions: DeletionService, exports: ExportService) -> APIRouter:
    """The own account in all its parts, and colleagues."""
    routes = APIRouter(prefix="/api/v1/users", tags=["users"])
    gone = errors.USER_NOT_FOUND

    @routes.get("/me", responses=problems(gone))
    async def get_own(user: CurrentUser) -> UserOut:
        """The own account."""
        return await profiles.get(user)

    @routes.patch("/me", responses=problems(gone))
    async def update_own(body: UpdateProfile, user: CurrentUser) -> UserOut:
        """Change the own profile; null clears a field."""
        return await profiles.update(user, body)

    @routes.delete(
        "/me", status_code=202, responses=problems(gone, errors.WRONG_PASSWORD, errors.SOLE_OWNER, errors.HASHING_BUSY)
    )
    async def delete_own(user: CurrentUser, request: Request, body: DeleteAccount | None = None) -> DeletionOut:
        """End the own account: sessions now, the rest after the grace period."""
        return await deletions.request(user, body or DeleteAccount(), client_address(request))

    @routes.get("/me/deletion", responses=problems(errors.DELETION_NOT_FOUND))
    async def get_deletion(user: CurrentUser) -> DeletionOut:
        """When the own account ends."""
        return await deletions.get(user)

    @routes.delete("/me/deletion", status_code=204, responses=problems(errors.DELETION_NOT_FOUND))
    async def cancel_deletion(user: CurrentUser, request: Request) -> None:
        """Keep the own account after all."""
        await deletions.cancel(user, client_address(request))

    @routes.get("/me/export", response_class=StreamingResponse)
    async def export_own(user: CurrentUser, request: Request) -> StreamingResponse:
        """All that is kept of the caller, as one JSON document."""
        pieces = await exports.export(user, client_address(request))
        headers = {"Content-Disposition": 'attachment; filename="omoios-account.json"', "Cache-Control": "no-store"}
        return StreamingResponse(pieces, media_type="application/json", headers=headers)

    @routes.get("/me/preferences", responses=problems(gone))
    async def get_preferences(user: CurrentUser) -> Preferences:
        """Time zone, language and theme."""
        return await profiles.preferences(user)

    @routes.patch("/me/preferences", responses=problems(gone))
    async def update_preferences(body: Preferences, user: CurrentUser) -> Preferences:
        """Set what the body names; null forgets it."""
        return await profiles.set_preferences(user, body)

    @routes.put("/me/avatar", responses=problems(gone))
    @body_limit(_AVATAR_BYTES)
    async def set_avatar(user: CurrentUser, request: Request) -> UserOut:
        """Upload a picture (PNG, JPEG, GIF or WebP, 512 KiB at most) as the body."""
        return await profiles.set_avatar(user, await request.body())

    @routes.delete("/me/avatar", responses=problems(gone))
    async def remove_avatar(user: CurrentUser) -> UserOut:
        """Show no picture any more."""
        return await profiles.remove_avatar(user)

    @routes.get("/me/organizations", responses=problems(gone))
    async def list_own_organizations(user: CurrentUser) -> OwnOrganizationsOut:
        """The caller and his organizations with his role in each."""
        return await profiles.organizations(user)

    @routes.get("/me/permissions", responses=problems(errors.ORGANIZATION_NOT_FOUND))
    async def get_permissions(organization_id: UUID, user: CurrentUser) -> PermissionsOut:
        """What the caller may do in an organization, inherited permissions included."""
        return await profiles.permissions(user, str(organization_id))

    @routes.get("/me/limits", responses=problems(errors.ORGANIZATION_NOT_FOUND))
    async def get_limits(organization_id: Annotated[UUID, Query()], user: CurrentUser) -> LimitsOut:
        """What an organization of the caller may use at once."""
        return await profiles.limits(user, str(organization_id))

    @routes.get("/{user_id}", responses=problems(gone))
    async def get_user(user_id: UUID, user: CurrentUser) -> UserOut | ColleagueOut:
        """A colleague in short; oneself, and for super admins anybody, in full."""
        return await profiles.find(user, str(user_id))

    @routes.get("/{user_id}/avatar/{digest}", responses=problems(errors.AVATAR_NOT_FOUND), response_class=Response)
    async def get_avatar(user_id: UUID, digest: Digest) -> Response:
        """A picture; its address changes with it, so it may be kept for good."""
        avatar = await profiles.avatar(str(user_id), digest)
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(avatar.content, media_type=avatar.content_type, headers=headers)

    return routes
