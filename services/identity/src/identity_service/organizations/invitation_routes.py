"""`/api/v1/organizations/{id}/invitations` and `/api/v1/invitations`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from identity_service import errors
from identity_service.organizations.invitation_schemas import (
    CreateInvitation,
    InvitationPage,
    InvitationToken,
    InvitedOut,
    InvitedPage,
    SentInvitationOut,
)
from identity_service.organizations.invitation_service import InvitationService
from identity_service.organizations.schemas import MembershipOut, MessageOut
from servicekit.auth import CurrentUser
from servicekit.http import Keyset, RateLimit, answer_not_kept, client_address, problems

State = Annotated[Literal["pending", "expired", "accepted", "declined", "revoked"] | None, Query()]


def router(invitations: InvitationService) -> APIRouter:
    """Inviting, and answering."""
    routes = APIRouter(prefix="/api/v1", tags=["organizations"])
    missing = errors.ORGANIZATION_NOT_FOUND
    unknown = errors.INVITATION_NOT_FOUND
    answers = (unknown, errors.INVITATION_FOR_ANOTHER)

    @routes.post(
        "/organizations/{org_id}/invitations",
        status_code=201,
        responses=problems(
            missing,
            errors.ROLE_NOT_FOUND,
            errors.ROLE_EXCEEDS_OWN,
            errors.ALREADY_MEMBER,
            errors.INVITATION_EXISTS,
            errors.TOO_MANY_INVITATIONS,
        ),
        dependencies=[Depends(RateLimit("organizations.invite", per_hour=100, fail_closed=True))],
    )
    @answer_not_kept
    async def invite(org_id: UUID, body: CreateInvitation, user: CurrentUser) -> SentInvitationOut:
        """Invite an address by mail to a role."""
        return await invitations.create(user, str(org_id), body)

    @routes.get("/organizations/{org_id}/invitations", responses=problems(missing))
    async def list_invitations(org_id: UUID, user: CurrentUser, page: Keyset, state: State = None) -> InvitationPage:
        """The organization's invitations, newest first."""
        return await invitations.page(user, str(org_id), state, page)

    @routes.post(
        "/organizations/{org_id}/invitations/{invitation_id}/resend",
        responses=problems(
            missing, unknown, errors.ROLE_EXCEEDS_OWN, errors.INVITATION_EXISTS, errors.TOO_MANY_INVITATIONS
        ),
        dependencies=[Depends(RateLimit("organizations.invite", per_hour=100, fail_closed=True))],
    )
    @answer_not_kept
    async def resend_invitation(org_id: UUID, invitation_id: UUID, user: CurrentUser) -> SentInvitationOut:
        """Mail a new link; the one before is dead."""
        return await invitations.resend(user, str(org_id), str(invitation_id))

    @routes.delete("/organizations/{org_id}/invitations/{invitation_id}", responses=problems(missing, unknown))
    async def revoke_invitation(org_id: UUID, invitation_id: UUID, user: CurrentUser) -> MessageOut:
        """Take an invitation back."""
        await invitations.revoke(user, str(org_id), str(invitation_id))
        return MessageOut(message="The invitation was revoked.")

    @routes.get("/invitations")
    async def list_own_invitations(user: CurrentUser) -> InvitedPage:
        """The open invitations of the own, confirmed address."""
        return await invitations.list_own(user)

    @routes.post(
        "/invitations/lookup",
        responses=problems(unknown),
        dependencies=[Depends(RateLimit("organizations.invitation_lookup", per_minute=30, key=client_address))],
    )
    async def look_up_invitation(body: InvitationToken) -> InvitedOut:
        """What a mailed link offers; the token travels in the body, so that no log keeps it."""
        return await invitations.look_up(body.token)

    @routes.post(
        "/invitations/accept",
        responses=problems(*answers, errors.ALREADY_MEMBER, errors.NOT_APPROVED, errors.EMAIL_NOT_VERIFIED),
    )
    async def accept_invitation(body: InvitationToken, user: CurrentUser) -> MembershipOut:
        """Join by the token of a mailed link; it works once, for the account of its address."""
        return await invitations.accept(user, token=body.token)

    @routes.post("/invitations/decline", responses=problems(*answers))
    async def decline_invitation(body: InvitationToken, user: CurrentUser) -> MessageOut:
        """Refuse by the token of a mailed link."""
        await invitations.decline(user, token=body.token)
        return MessageOut(message="The invitation was declined.")

    @routes.post(
        "/invitations/{invitation_id}/accept",
        responses=problems(*answers, errors.ALREADY_MEMBER, errors.NOT_APPROVED, errors.EMAIL_NOT_VERIFIED),
    )
    async def accept_own_invitation(invitation_id: UUID, user: CurrentUser) -> MembershipOut:
        """Join by an invitation of the own list."""
        return await invitations.accept(user, invitation_id=str(invitation_id))

    @routes.post("/invitations/{invitation_id}/decline", responses=problems(*answers))
    async def decline_own_invitation(invitation_id: UUID, user: CurrentUser) -> MessageOut:
        """Refuse an invitation of the own list."""
        await invitations.decline(user, invitation_id=str(invitation_id))
        return MessageOut(message="The invitation was declined.")

    return routes
