"""Everything this service can say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from identity_service.organizations.tables import Invitation, Organization
from identity_service.users.tables import User
from omoios.identity.events.v1 import events_pb2 as events
from servicekit.db import Tx


def user_registered(tx: Tx, user: User) -> None:
    """An account was made."""
    message = events.UserRegistered(user_id=user.id, email=user.email, full_name=user.full_name or "")
    tx.emit(message, aggregate_id=user.id, version=user.version)


def user_updated(tx: Tx, user: User) -> None:
    """The profile or the state of an account changed."""
    message = events.UserUpdated(
        user_id=user.id, email=user.email, full_name=user.full_name or "", is_active=user.is_active
    )
    tx.emit(message, aggregate_id=user.id, version=user.version)


def user_deleted(tx: Tx, user: User) -> None:
    """An account was erased: whoever keeps something of the person deletes it."""
    tx.emit(events.UserDeleted(user_id=user.id), aggregate_id=user.id, version=user.version)


def organization_created(tx: Tx, organization: Organization) -> None:
    """A tenant was made."""
    message = events.OrganizationCreated(
        organization_id=organization.id,
        name=organization.name,
        slug=organization.slug,
        owner_id=organization.owner_id,
        billing_email=organization.billing_email or "",
        max_concurrent_agents=organization.max_concurrent_agents,
        max_agent_runtime_hours=organization.max_agent_runtime_hours,
    )
    tx.emit(message, aggregate_id=organization.id, version=organization.version, organization_id=organization.id)


def organization_updated(tx: Tx, organization: Organization) -> None:
    """A tenant changed, or was archived (`is_active` false)."""
    message = events.OrganizationUpdated(
        organization_id=organization.id,
        name=organization.name,
        slug=organization.slug,
        owner_id=organization.owner_id,
        billing_email=organization.billing_email or "",
        is_active=organization.is_active,
        max_concurrent_agents=organization.max_concurrent_agents,
        max_agent_runtime_hours=organization.max_agent_runtime_hours,
    )
    tx.emit(message, aggregate_id=organization.id, version=organization.version, organization_id=organization.id)


def membership_changed(
    tx: Tx, *, user_id: str, organization_id: str, role: str, permissions: Sequence[str], active: bool, version: int
) -> None:
    """A user's place in an organization as it now stands."""
    message = events.MembershipChanged(
        user_id=user_id,
        organization_id=organization_id,
        role=role,
        permissions=sorted(permissions),
        active=active,
        version=version,
    )
    tx.emit(message, aggregate_id=f"{user_id}:{organization_id}", version=version, organization_id=organization_id)


def invitation_sent(tx: Tx, invitation: Invitation, role: str) -> None:
    """An invitation went out, for the first time or again."""
    message = events.InvitationSent(invitation_id=invitation.id, role=role, sent_count=invitation.sent_count)
    message.expires_at.FromDatetime(invitation.expires_at)
    _about(tx, invitation, message, invitation.sent_count)


def invitation_accepted(tx: Tx, invitation: Invitation, user_id: str, role: str) -> None:
    """The invited person joined."""
    message = events.InvitationAccepted(invitation_id=invitation.id, user_id=user_id, role=role)
    _about(tx, invitation, message, invitation.sent_count + 1)


def invitation_closed(tx: Tx, invitation: Invitation) -> None:
    """An invitation was revoked or declined, or its time has passed."""
    message = events.InvitationClosed(invitation_id=invitation.id, state=invitation.state)
    _about(tx, invitation, message, invitation.sent_count + 1)


def _about(tx: Tx, invitation: Invitation, message: Message, version: int) -> None:
    tx.emit(message, aggregate_id=invitation.id, version=version, organization_id=invitation.organization_id)


def principal_revoked(
    tx: Tx,
    principal_type: str,
    principal_id: str,
    not_before: datetime,
    reason: str,
    organization_id: str | None = None,
) -> None:
    """Tokens of the principal issued before `not_before` are dead."""
    moment = Timestamp()
    moment.FromDatetime(not_before)
    message = events.PrincipalRevoked(
        principal_type=principal_type, principal_id=principal_id, not_before=moment, reason=reason
    )
    tx.emit(message, aggregate_id=f"{principal_type}:{principal_id}", organization_id=organization_id)


def session_replayed(tx: Tx, user_id: str, session_id: str, generation: int) -> None:
    """An old refresh token of the session was used: somebody holds a copy. The session has ended."""
    message = events.SessionReplayed(user_id=user_id, session_id=session_id, generation=generation)
    tx.emit(message, aggregate_id=session_id)


def signing_key_rotated(tx: Tx, key_id: str, previous_key_id: str) -> None:
    """Another key signs from now on."""
    tx.emit(events.SigningKeyRotated(key_id=key_id, previous_key_id=previous_key_id), aggregate_id=key_id)
