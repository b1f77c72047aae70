"""SQL of organizations, roles and memberships."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from identity_service.organizations import rules
from identity_service.organizations.tables import Invitation, Membership, MembershipVersion, Organization, Role
from identity_service.users.tables import User
from servicekit.auth.feed import MEMBERSHIPS_CHANNEL
from servicekit.db import Tx
from servicekit.ids import new_id

Page = tuple[str, str]


async def seed_system_roles(tx: Tx) -> None:
    """Makes the system roles as `rules.SYSTEM_ROLES` says; running it again changes only what differs."""
    for name, (description, permissions) in rules.SYSTEM_ROLES.items():
        statement = upsert(Role).values(
            id=new_id(), name=name, description=description, permissions=list(permissions), is_system=True
        )
        await tx.session.execute(
            statement.on_conflict_do_update(
                index_elements=[Role.name],
                index_where=Role.organization_id.is_(None),
                set_={"description": description, "permissions": list(permissions)},
            )
        )


async def add_organization(tx: Tx, **values: Any) -> Organization:
    """Inserts an organization. Raises IntegrityError when the slug is taken."""
    return (await tx.session.execute(insert(Organization).values(**values).returning(Organization))).scalar_one()


async def find_organization(tx: Tx, organization_id: str, *, lock: bool = False) -> Organization | None:
    """The organization, archived or not."""
    query = select(Organization).where(Organization.id == organization_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_organizations(tx: Tx, ids: Sequence[str]) -> Sequence[Organization]:
    """The organizations that exist among `ids`."""
    return (await tx.session.execute(select(Organization).where(Organization.id.in_(ids)))).scalars().all()


async def page_organizations(tx: Tx, after: str, limit: int) -> Sequence[Organization]:
    """A page of all organizations by id."""
    query = select(Organization).where(Organization.id > after).order_by(Organization.id).limit(limit)
    return (await tx.session.execute(query)).scalars().all()


async def change_organization(tx: Tx, organization_id: str, **values: Any) -> Organization:
    """Sets the given columns and raises the version; the organization must exist."""
    statement = (
        update(Organization)
        .where(Organization.id == organization_id)
        .values(version=Organization.version + 1, updated_at=func.now(), **values)
        .returning(Organization)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def list_of_user(tx: Tx, user_id: str, limit: int, *, archived_as: str) -> Sequence[tuple[Organization, str]]:
    """(organization, role name) of each active organization of a user, in the order of joining.

    Archived ones are among them where the user has the system role `archived_as`.
    """
    its_owner = Role.organization_id.is_(None) & (Role.name == archived_as)
    query = (
        select(Organization, Role.name)
        .join(Membership, Membership.organization_id == Organization.id)
        .join(Role, Role.id == Membership.role_id)
        .where(Membership.user_id == user_id, or_(Organization.is_active, its_owner))
        .order_by(Membership.joined_at, Organization.id)
        .limit(limit)
    )
    return [(organization, role) for organization, role in await tx.session.execute(query)]


async def visible_roles(tx: Tx, organization_ids: Iterable[str]) -> dict[str, rules.RoleNode]:
    """System roles and the roles of the given organizations, for the walk along inheritance."""
    query = select(Role.id, Role.permissions, Role.inherits_from, Role.organization_id).where(
        or_(Role.organization_id.is_(None), Role.organization_id.in_(list(organization_ids)))
    )
    rows = (await tx.session.execute(query)).all()
    return {
        row.id: rules.RoleNode(row.id, tuple(row.permissions), row.inherits_from, row.organization_id is not None)
        for row in rows
    }


async def list_roles(tx: Tx, organization_id: str, *, include_system: bool) -> Sequence[Role]:
    """The organization's roles, system roles first."""
    scope = Role.organization_id == organization_id
    query = select(Role).where(or_(scope, Role.organization_id.is_(None)) if include_system else scope)
    return (await tx.session.execute(query.order_by(Role.is_system.desc(), Role.created_at, Role.id))).scalars().all()


async def find_role(tx: Tx, organization_id: str, role_id: str, *, lock: bool = False) -> Role | None:
    """A system role or one of the organization; None for any other."""
    query = select(Role).where(
        Role.id == role_id, or_(Role.organization_id.is_(None), Role.organization_id == organization_id)
    )
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def system_role(tx: Tx, name: str) -> Role:
    """The system role of that name."""
    query = select(Role).where(Role.name == name, Role.organization_id.is_(None))
    return (await tx.session.execute(query)).scalar_one()


async def add_role(tx: Tx, **values: Any) -> Role:
    """Inserts a role. Raises IntegrityError when the organization has one of that name."""
    return (await tx.session.execute(insert(Role).values(**values).returning(Role))).scalar_one()


async def change_role(tx: Tx, role_id: str, **values: Any) -> Role:
    """Sets the given columns and raises the version; the role must exist."""
    statement = (
        update(Role)
        .where(Role.id == role_id)
        .values(version=Role.version + 1, **values)
        .returning(Role)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def role_is_used(tx: Tx, role_id: str) -> bool:
    """Whether a member has the role, someone is invited to it, or another role inherits from it."""
    invited = select(Invitation.id).where(Invitation.role_id == role_id, Invitation.state == "pending")
    members = select(Membership.id).where(Membership.role_id == role_id)
    heirs = select(Role.id).where(Role.inherits_from == role_id)
    return bool(
        (await tx.session.execute(select(or_(members.exists(), heirs.exists(), invited.exists())))).scalar_one()
    )


async def delete_role(tx: Tx, role_id: str) -> None:
    """Deletes a role that nobody uses."""
    await tx.session.execute(delete(Role).where(Role.id == role_id))


async def add_member(tx: Tx, **values: Any) -> Membership:
    """Inserts a membership. Raises IntegrityError when there is one already or the user is unknown."""
    return (await tx.session.execute(insert(Membership).values(**values).returning(Membership))).scalar_one()


async def find_member(tx: Tx, organization_id: str, member_id: str, *, lock: bool = False) -> Membership | None:
    """A membership of this organization."""
    query = select(Membership).where(Membership.id == member_id, Membership.organization_id == organization_id)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def find_member_by_user(tx: Tx, organization_id: str, user_id: str) -> Membership | None:
    """The membership of a user in this organization."""
    query = select(Membership).where(Membership.organization_id == organization_id, Membership.user_id == user_id)
    return (await tx.session.execute(query)).scalar_one_or_none()


async def list_members(
    tx: Tx, organization_id: str, limit: int, offset: int
) -> Sequence[tuple[Membership, Role, User | None]]:
    """(membership, role, account) of the organization in the order of joining; an agent has no account."""
    query = (
        select(Membership, Role, User)
        .join(Role, Role.id == Membership.role_id)
        .outerjoin(User, User.id == Membership.user_id)
        .where(Membership.organization_id == organization_id)
        .order_by(Membership.joined_at, Membership.id)
        .limit(limit)
        .offset(offset)
    )
    return [(member, role, user) for member, role, user in await tx.session.execute(query)]


async def members_with_roles(tx: Tx, organization_id: str, role_ids: Iterable[str]) -> Sequence[tuple[str, Role]]:
    """(user id, role) of each user of the organization who has one of the roles."""
    query = (
        select(Membership.user_id, Role)
        .join(Role, Role.id == Membership.role_id)
        .where(
            Membership.organization_id == organization_id,
            Membership.user_id.is_not(None),
            Membership.role_id.in_(list(role_ids)),
        )
    )
    return [(user_id, role) for user_id, role in await tx.session.execute(query) if user_id is not None]


async def change_member(tx: Tx, member_id: str, role_id: str) -> Membership:
    """Gives a member another role."""
    statement = (
        update(Membership)
        .where(Membership.id == member_id)
        .values(role_id=role_id, updated_at=func.now())
        .returning(Membership)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def delete_member(tx: Tx, member_id: str) -> None:
    """Removes a membership."""
    await tx.session.execute(delete(Membership).where(Membership.id == member_id))


async def active_owners(tx: Tx, organization_id: str, owner_role_id: str, *, besides: str = "") -> Sequence[str]:
    """The users who own the organization and may sign in, who joined first first. The caller holds its row lock."""
    query = (
        select(User.id)
        .join(Membership, Membership.user_id == User.id)
        .where(
            Membership.organization_id == organization_id,
            Membership.role_id == owner_role_id,
            User.is_active,
            User.deleted_at.is_(None),
            User.id != besides,
        )
        .order_by(Membership.joined_at, Membership.id)
    )
    return (await tx.session.execute(query)).scalars().all()


async def owned_by(tx: Tx, user_id: str, owner_role_id: str) -> Sequence[Organization]:
    """The active organizations that the user owns."""
    query = (
        select(Organization)
        .join(Membership, Membership.organization_id == Organization.id)
        .where(Membership.user_id == user_id, Membership.role_id == owner_role_id, Organization.is_active)
        .order_by(Organization.id)
    )
    return (await tx.session.execute(query)).scalars().all()


async def organizations_of(tx: Tx, user_id: str) -> Sequence[str]:
    """The ids of all organizations that the user belongs to, archived ones included."""
    query = select(Membership.organization_id).where(Membership.user_id == user_id)
    return (await tx.session.execute(query)).scalars().all()


async def is_member_of_any(tx: Tx, user_id: str, organization_ids: Sequence[str]) -> bool:
    """Whether the user belongs to one of the organizations."""
    query = select(Membership.id).where(
        Membership.user_id == user_id, Membership.organization_id.in_(list(organization_ids))
    )
    return (await tx.session.execute(query.limit(1))).first() is not None


async def next_membership_version(tx: Tx, user_id: str, organization_id: str) -> int:
    """The next version of a user's membership; it also grows over removal and return. Wakes this service's caches."""
    await tx.session.execute(text(f"SELECT pg_notify('{MEMBERSHIPS_CHANNEL}', :user_id)"), {"user_id": user_id})
    statement = upsert(MembershipVersion).values(user_id=user_id, organization_id=organization_id, version=1)
    statement = statement.on_conflict_do_update(
        index_elements=[MembershipVersion.user_id, MembershipVersion.organization_id],
        set_={"version": MembershipVersion.version + 1, "updated_at": func.now()},
    )
    return (await tx.session.execute(statement.returning(MembershipVersion.version))).scalar_one()


def _memberships() -> Any:
    return (
        select(
            MembershipVersion.user_id,
            MembershipVersion.organization_id,
            MembershipVersion.version,
            Role.id.label("role_id"),
            Role.name.label("role_name"),
            (Membership.id.is_not(None) & func.coalesce(Organization.is_active, False)).label("active"),
        )
        .outerjoin(
            Membership,
            (Membership.user_id == MembershipVersion.user_id)
            & (Membership.organization_id == MembershipVersion.organization_id),
        )
        .outerjoin(Role, Role.id == Membership.role_id)
        .outerjoin(Organization, Organization.id == MembershipVersion.organization_id)
    )


async def memberships_of(tx: Tx, user_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """`(user_id, organization_id, version, role_id, role_name, active)` of the users, removed ones as inactive."""
    return (await tx.session.execute(_memberships().where(MembershipVersion.user_id.in_(user_ids)))).all()


async def page_memberships(tx: Tx, after: Page, limit: int) -> Sequence[Row[Any]]:
    """A page of all memberships by (user, organization), removed ones as inactive."""
    key = tuple_(MembershipVersion.user_id, MembershipVersion.organization_id)
    query = _memberships().where(key > after)
    query = query.order_by(MembershipVersion.user_id, MembershipVersion.organization_id).limit(limit)
    return (await tx.session.execute(query)).all()
