"""Invitations: sent by those who may add members, answered by the person whose address they name."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy.exc import IntegrityError

from identity_service import events
from identity_service.audit import service as audit
from identity_service.errors import (
    ALREADY_MEMBER,
    INVITATION_EXISTS,
    INVITATION_FOR_ANOTHER,
    INVITATION_NOT_FOUND,
    ROLE_NOT_FOUND,
    TOO_MANY_INVITATIONS,
    USER_NOT_FOUND,
)
from identity_service.mail.service import MailService
from identity_service.organizations import invitation_store, rules, store
from identity_service.organizations.invitation_schemas import (
    CreateInvitation,
    InvitationOut,
    InvitationPage,
    InvitedOut,
    InvitedPage,
    SentInvitationOut,
)
from identity_service.organizations.schemas import MembershipOut
from identity_service.organizations.standing_service import announce_member, enter, grantable, note, readable
from identity_service.organizations.tables import Invitation, Organization, Role
from identity_service.settings import Settings
from identity_service.users import service as users
from identity_service.users.tables import User
from servicekit.auth import Principal
from servicekit.clock import utc_now
from servicekit.db import Database, Tx
from servicekit.http.paging import KeysetParams, next_token
from servicekit.ids import new_id

EXPIRED_AT_ONCE = 500


class InvitationService:
    """Use cases of `/organizations/{id}/invitations` and `/invitations`."""

    def __init__(self, db: Database, settings: Settings, mail: MailService) -> None:
        self._db = db
        self._settings = settings
        self._mail = mail

    async def create(self, principal: Principal, organization_id: str, body: CreateInvitation) -> SentInvitationOut:
        """Invites an address and mails it a link.

        Raises `identity.already_member`, `.invitation_exists`, `.too_many_invitations` (409), `.role_not_found`,
        `.role_exceeds_own`.
        """
        token = _new_token()
        try:
            async with self._db.uow() as tx:
                standing = await enter(tx, principal, "org:members:write", organization_id)
                role = await grantable(tx, standing, str(body.role_id))
                if await invitation_store.is_member_address(tx, organization_id, body.email):
                    raise ALREADY_MEMBER()
                for expired in await invitation_store.close_expired(tx, organization_id, body.email):
                    await _expired(tx, expired)
                if await invitation_store.count_pending(tx, organization_id) >= rules.MAX_PENDING_INVITATIONS:
                    raise TOO_MANY_INVITATIONS()
                invitation = await invitation_store.add(
                    tx,
                    id=new_id(),
                    organization_id=organization_id,
                    email=body.email,
                    role_id=role.id,
                    digest=_digest(token),
                    invited_by=principal.user_id,
                    expires_at=utc_now() + timedelta(days=body.expires_in_days),
                )
                events.invitation_sent(tx, invitation, role.name)
                await note(tx, "invitation.sent", principal, organization_id, invitation=invitation.id, role=role.name)
                return tx.result(await self._send(tx, principal, standing.organization, invitation, role, token))
        except IntegrityError as error:
            raise INVITATION_EXISTS() from error

    async def page(
        self, principal: Principal, organization_id: str, state: str | None, page: KeysetParams
    ) -> InvitationPage:
        """The organization's invitations, newest first."""
        before = page.expect(str)
        async with self._db.reader() as tx:
            await readable(tx, principal, "org:members:read", organization_id)
            rows = await invitation_store.page(
                tx, organization_id, state=state, before=before[0] if before else None, limit=page.fetch
            )
        items, token = next_token(list(rows), page, lambda row: (row[0].id,))
        now = utc_now()
        return InvitationPage(items=[InvitationOut.of(row, role, now) for row, role in items], next_page_token=token)

    async def resend(self, principal: Principal, organization_id: str, invitation_id: str) -> SentInvitationOut:
        """Mails a new link; the one before is dead, and the invitation's time starts again.

        Raises `identity.too_many_invitations` (409) after `rules.MAX_SENT` mails.
        """
        try:
            async with self._db.uow() as tx:
                return tx.result(await self._sent_again(tx, principal, organization_id, invitation_id))
        except IntegrityError as error:
            # It had expired, and the address has got another one since.
            raise INVITATION_EXISTS() from error

    async def _sent_again(
        self, tx: Tx, principal: Principal, organization_id: str, invitation_id: str
    ) -> SentInvitationOut:
        token = _new_token()
        standing = await enter(tx, principal, "org:members:write", organization_id)
        invitation = await self._open(tx, organization_id, invitation_id, "pending", "expired")
        role = await grantable(tx, standing, invitation.role_id)
        if invitation.sent_count >= rules.MAX_SENT:
            raise TOO_MANY_INVITATIONS("This invitation was sent often enough; revoke it and make another.")
        life = invitation.expires_at - invitation.sent_at
        now = utc_now()
        invitation = await invitation_store.change(
            tx,
            invitation.id,
            digest=_digest(token),
            sent_count=invitation.sent_count + 1,
            sent_at=now,
            expires_at=now + life,
            state="pending",
            closed_at=None,
        )
        events.invitation_sent(tx, invitation, role.name)
        await note(tx, "invitation.resent", principal, organization_id, invitation=invitation.id)
        return await self._send(tx, principal, standing.organization, invitation, role, token)

    async def revoke(self, principal: Principal, organization_id: str, invitation_id: str) -> None:
        """Ends a pending invitation. Raises `identity.invitation_not_found`."""
        async with self._db.uow() as tx:
            await enter(tx, principal, "org:members:write", organization_id)
            invitation = await self._open(tx, organization_id, invitation_id, "pending")
            invitation = await invitation_store.close(tx, invitation.id, "revoked", principal.user_id)
            events.invitation_closed(tx, invitation)
            await note(tx, "invitation.revoked", principal, organization_id, invitation=invitation.id)

    async def list_own(self, principal: Principal) -> InvitedPage:
        """The open invitations of the caller's confirmed address, newest first, 100 at most."""
        async with self._db.reader() as tx:
            user = await self._account(tx, principal)
            rows = await invitation_store.list_open(tx, email=user.email) if user.is_verified else []
            return InvitedPage(items=[InvitedOut.of(*row) for row in rows])

    async def look_up(self, token: str) -> InvitedOut:
        """What a mailed link offers. Raises `identity.invitation_not_found` where nothing can be accepted any more."""
        async with self._db.reader() as tx:
            found = await invitation_store.find_by_digest(tx, _digest(token))
            rows = await invitation_store.list_open(tx, invitation_id=found.id) if found is not None else []
            if not rows:
                raise INVITATION_NOT_FOUND()
            return InvitedOut.of(*rows[0])

    async def accept(
        self, principal: Principal, *, token: str | None = None, invitation_id: str | None = None
    ) -> MembershipOut:
        """Joins the organization: by the link's token, or by id for a confirmed address. Works once.

        Raises `identity.invitation_not_found` (404), `.invitation_for_another` (403), `.already_member` (409).
        """
        try:
            async with self._db.uow() as tx:
                user = await users.require_admitted(tx, self._settings, principal.user_id)
                invitation, organization = await self._answerable(tx, user, token, invitation_id)
                role = await store.find_role(tx, organization.id, invitation.role_id)
                if role is None:
                    raise ROLE_NOT_FOUND()
                await invitation_store.close(tx, invitation.id, "accepted", user.id)
                events.invitation_accepted(tx, invitation, user.id, role.name)
                member = await store.add_member(
                    tx,
                    id=new_id(),
                    organization_id=organization.id,
                    user_id=user.id,
                    role_id=role.id,
                    invited_by=invitation.invited_by,
                )
                await announce_member(tx, user.id, organization, role)
                await note(
                    tx,
                    "invitation.accepted",
                    principal,
                    organization.id,
                    invitation=invitation.id,
                    member=member.id,
                    role=role.name,
                )
                return tx.result(MembershipOut.of(member, role, user))
        except IntegrityError as error:
            raise ALREADY_MEMBER() from error

    async def decline(
        self, principal: Principal, *, token: str | None = None, invitation_id: str | None = None
    ) -> None:
        """Refuses an invitation; errors as for `accept`."""
        async with self._db.uow() as tx:
            user = await self._account(tx, principal)
            invitation, organization = await self._answerable(tx, user, token, invitation_id)
            invitation = await invitation_store.close(tx, invitation.id, "declined", user.id)
            events.invitation_closed(tx, invitation)
            await note(tx, "invitation.declined", principal, organization.id, invitation=invitation.id)

    async def _send(
        self, tx: Tx, principal: Principal, organization: Organization, invitation: Invitation, role: Role, token: str
    ) -> SentInvitationOut:
        inviter = await users.find(tx, principal.user_id)
        url = self._mail.link("/invitations", token=token)
        life = invitation.expires_at - invitation.sent_at
        await self._mail.queue(
            tx,
            "invitation",
            invitation.email,
            {
                "organization": organization.name,
                "inviter": (inviter.full_name or inviter.email) if inviter is not None else organization.name,
                "role": role.name,
                "url": url,
                "days": str(max(round(life / timedelta(days=1)), 1)),
            },
            f"invitation:{invitation.id}:{invitation.sent_count}",
            useful_for=life,
        )
        shown = InvitationOut.of(invitation, role, utc_now())
        return SentInvitationOut(**shown.model_dump(), accept_url=None if self._mail.enabled else url)

    async def expire_due(self) -> int:
        """Ends invitations whose time has passed; returns how many. A job of the leader."""
        async with self._db.uow() as tx:
            rows = await invitation_store.expire(tx, EXPIRED_AT_ONCE)
            for row in rows:
                await _expired(tx, row)
        return len(rows)

    async def _open(self, tx: Tx, organization_id: str, invitation_id: str, *states: str) -> Invitation:
        invitation = await invitation_store.find(tx, invitation_id, lock=True)
        if invitation is None or invitation.organization_id != organization_id or invitation.state not in states:
            raise INVITATION_NOT_FOUND()
        return invitation

    async def _answerable(
        self, tx: Tx, user: User, token: str | None, invitation_id: str | None
    ) -> tuple[Invitation, Organization]:
        """(the open invitation, its organization), both locked, if this user may answer it."""
        found = None
        if token is not None:
            found = await invitation_store.find_by_digest(tx, _digest(token))
        elif invitation_id is not None and user.is_verified:
            # Without the mailed secret only a confirmed address proves whom the invitation is for.
            found = await invitation_store.find(tx, invitation_id)
            found = found if found is not None and found.email == user.email else None
        if found is None:
            raise INVITATION_NOT_FOUND()
        # The organization first, as every change of members does it: the other order could deadlock with a removal.
        organization = await store.find_organization(tx, found.organization_id, lock=True)
        # Then the user, whose erasure closes his invitations: he joins before it, or not at all.
        if await users.find(tx, user.id, lock=True) is None:
            raise USER_NOT_FOUND()
        invitation = await invitation_store.find(tx, found.id, lock=True)
        if organization is None or not organization.is_active or invitation is None:
            raise INVITATION_NOT_FOUND()
        if token is not None and invitation.digest != _digest(token):
            raise INVITATION_NOT_FOUND()
        if rules.invitation_state(invitation.state, invitation.expires_at, utc_now()) != "pending":
            raise INVITATION_NOT_FOUND()
        if invitation.email != user.email:
            raise INVITATION_FOR_ANOTHER()
        return invitation, organization

    async def _account(self, tx: Tx, principal: Principal) -> User:
        user = await users.find(tx, principal.user_id)
        if user is None:
            raise USER_NOT_FOUND()
        return user


async def _expired(tx: Tx, invitation: Invitation) -> None:
    events.invitation_closed(tx, invitation)
    await audit.record(
        tx,
        "invitation.expired",
        actor_id=None,
        actor_type="system",
        organization_id=invitation.organization_id,
        invitation=invitation.id,
    )


def _new_token() -> str:
    """256 random bits, url-safe."""
    return "omi_" + secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
