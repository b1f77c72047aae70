"""SQL of invitations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, func, insert, select, update

from identity_service.organizations.tables import Invitation, Membership, Organization, Role
from identity_service.users.tables import User
from servicekit.db import Tx

Invited = tuple[Invitation, Organization, Role, User | None]


async def add(tx: Tx, **values: Any) -> Invitation:
    """Inserts an invitation. Raises IntegrityError when the address has a pending one there."""
    return (await tx.session.execute(insert(Invitation).values(**values).returning(Invitation))).scalar_one()


async def find(tx: Tx, invitation_id: str, *, lock: bool = False) -> Invitation | None:
    """An invitation by id, in any state."""
    query = select(Invitation).where(Invitation.id == invitation_id).execution_options(populate_existing=True)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_by_digest(tx: Tx, digest: bytes) -> Invitation | None:
    """The invitation whose latest token has this SHA-256, in any state."""
    return (await tx.session.execute(select(Invitation).where(Invitation.digest == digest))).scalar_one_or_none()


async def change(tx: Tx, invitation_id: str, **values: Any) -> Invitation:
    """Sets the given columns; the invitation must exist."""
    statement = (
        update(Invitation)
        .where(Invitation.id == invitation_id)
        .values(**values)
        .returning(Invitation)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def close(tx: Tx, invitation_id: str, state: str, closed_by: str | None) -> Invitation:
    """Ends an invitation in the given state."""
    return await change(tx, invitation_id, state=state, closed_at=func.now(), closed_by=closed_by)


async def close_expired(tx: Tx, organization_id: str, email: str) -> Sequence[Invitation]:
    """Makes room for a new invitation of an address whose pending one has run out."""
    return await _expire(tx, Invitation.organization_id == organization_id, Invitation.email == email)


async def expire(tx: Tx, limit: int) -> Sequence[Invitation]:
    """Ends pending invitations whose time has passed; those that somebody answers at this moment are left out."""
    due = (
        select(Invitation.id)
        .where(Invitation.state == "pending", Invitation.expires_at <= func.now())
        .order_by(Invitation.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return await _expire(tx, Invitation.id.in_(due))


async def _expire(tx: Tx, *conditions: Any) -> Sequence[Invitation]:
    statement = (
        update(Invitation)
        .where(Invitation.state == "pending", Invitation.expires_at <= func.now(), *conditions)
        .values(state="expired", closed_at=func.now())
        .returning(Invitation)
    )
    return (await tx.session.execute(statement)).scalars().all()


async def forget_address(tx: Tx, email: str, replacement: str) -> Sequence[Invitation]:
    """Ends the pending invitations of an address and replaces it in all, when its account is erased.

    Returns those that were pending. One statement: a row that a transaction changes twice is checked against its
    organization, which waits for whoever holds that one while he waits for the account.
    """
    pending = Invitation.state == "pending"
    ended = (
        (await tx.session.execute(select(Invitation.id).where(Invitation.email == email, pending).with_for_update()))
        .scalars()
        .all()
    )
    statement = (
        update(Invitation)
        .where(Invitation.email == email)
        .values(
            email=replacement,
            # Expired ones can be sent again, but not to nobody.
            state=case((Invitation.state.in_(("pending", "expired")), "revoked"), else_=Invitation.state),
            closed_at=case((pending, func.now()), else_=Invitation.closed_at),
        )
        .returning(Invitation)
        .execution_options(populate_existing=True)
    )
    rows = (await tx.session.execute(statement)).scalars().all()
    return [row for row in rows if row.id in ended]


async def count_pending(tx: Tx, organization_id: str) -> int:
    """How many invitations of an organization are pending."""
    query = select(func.count()).where(Invitation.organization_id == organization_id, Invitation.state == "pending")
    return (await tx.session.execute(query)).scalar_one()


async def is_member_address(tx: Tx, organization_id: str, email: str) -> bool:
    """Whether the account of an address belongs to the organization."""
    query = (
        select(Membership.id)
        .join(User, User.id == Membership.user_id)
        .where(Membership.organization_id == organization_id, User.email == email, User.deleted_at.is_(None))
    )
    return (await tx.session.execute(query)).first() is not None


async def page(
    tx: Tx, organization_id: str, *, state: str | None, before: str | None, limit: int
) -> Sequence[tuple[Invitation, Role]]:
    """(invitation, role) of an organization, newest first, with ids before `before`."""
    query = (
        select(Invitation, Role)
        .join(Role, Role.id == Invitation.role_id)
        .where(Invitation.organization_id == organization_id)
    )
    if before is not None:
        query = query.where(Invitation.id < before)
    if state == "expired":
        passed = (Invitation.state == "pending") & (Invitation.expires_at <= func.now())
        query = query.where(passed | (Invitation.state == "expired"))
    elif state == "pending":
        query = query.where(Invitation.state == "pending", Invitation.expires_at > func.now())
    elif state is not None:
        query = query.where(Invitation.state == state)
    rows = await tx.session.execute(query.order_by(Invitation.id.desc()).limit(limit))
    return [(invitation, role) for invitation, role in rows]


async def list_open(
    tx: Tx, *, email: str | None = None, invitation_id: str | None = None, limit: int = 100
) -> Sequence[Invited]:
    """Open invitations (pending, not expired, of an active organization) of an address or of an id, newest first."""
    query = (
        select(Invitation, Organization, Role, User)
        .join(Organization, Organization.id == Invitation.organization_id)
        .join(Role, Role.id == Invitation.role_id)
        .outerjoin(User, (User.id == Invitation.invited_by) & User.deleted_at.is_(None))
        .where(Invitation.state == "pending", Invitation.expires_at > func.now(), Organization.is_active)
    )
    if email is not None:
        query = query.where(Invitation.email == email)
    if invitation_id is not None:
        query = query.where(Invitation.id == invitation_id)
    rows = await tx.session.execute(query.order_by(Invitation.id.desc()).limit(limit))
    return [(invitation, organization, role, user) for invitation, organization, role, user in rows]
