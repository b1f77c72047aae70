"""What the end of an account means for its organizations."""

from __future__ import annotations

from collections.abc import Sequence

from identity_service import events
from identity_service.audit import service as audit
from identity_service.organizations import invitation_store, rules, store
from identity_service.organizations.standing_service import announce_member, keep_an_owner
from identity_service.organizations.tables import Organization
from servicekit.db import Tx


async def owned_alone(tx: Tx, user_id: str) -> Sequence[Organization]:
    """The active organizations that would be left without an active owner."""
    owner = await store.system_role(tx, rules.OWNER)
    alone = []
    for organization in await store.owned_by(tx, user_id, owner.id):
        if not await store.active_owners(tx, organization.id, owner.id, besides=user_id):
            alone.append(organization)
    return alone


async def belongs_anywhere(tx: Tx, user_id: str) -> bool:
    """Whether the user has a membership."""
    return bool(await store.organizations_of(tx, user_id))


async def leave_all(tx: Tx, user_id: str, email: str | None) -> None:
    """Ends every membership of the user; invoices go to his address no more. Raises `identity.last_owner`.

    Organizations are locked in the order of their ids, before the account itself: all who lock both do it so.
    """
    for organization_id in sorted(await store.organizations_of(tx, user_id)):
        organization = await store.find_organization(tx, organization_id, lock=True)
        member = await store.find_member_by_user(tx, organization_id, user_id)
        if organization is None or member is None:
            continue
        if organization.is_active:
            organization = await keep_an_owner(tx, organization, member)
        if email is not None and (organization.billing_email or "").lower() == email:
            # Billing follows this event and forgets it as well.
            organization = await store.change_organization(tx, organization_id, billing_email=None)
            events.organization_updated(tx, organization)
        await store.delete_member(tx, member.id)
        await announce_member(tx, user_id, organization, None)
        await audit.record(
            tx,
            "member.left",
            actor_id=user_id,
            organization_id=organization_id,
            member=member.id,
            user_id=user_id,
            reason="account deleted",
        )


async def forget_address(tx: Tx, email: str, placeholder: str) -> None:
    """Ends the open invitations of an address and takes it out of the closed ones."""
    for invitation in await invitation_store.forget_address(tx, email, placeholder):
        events.invitation_closed(tx, invitation)
