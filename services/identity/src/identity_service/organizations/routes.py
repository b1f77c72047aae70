"""`/api/v1/organizations`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from identity_service import errors
from identity_service.organizations.member_service import MemberService
from identity_service.organizations.role_service import RoleService
from identity_service.organizations.schemas import (
    AddMember,
    ChangeMember,
    CreateOrganization,
    CreateRole,
    MembershipOut,
    MessageOut,
    OrganizationOut,
    OrganizationSummary,
    OwnerInfo,
    RoleOut,
    TransferOwnership,
    UpdateOrganization,
    UpdateRole,
)
from identity_service.organizations.service import OrganizationService
from servicekit.auth import CurrentUser
from servicekit.http import problems

Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]


def router(organizations: OrganizationService, members: MemberService, roles: RoleService) -> APIRouter:
    """Organizations, members and roles."""
    routes = APIRouter(prefix="/api/v1/organizations", tags=["organizations"])
    missing = errors.ORGANIZATION_NOT_FOUND

    @routes.post("", status_code=201, responses=problems(errors.SLUG_TAKEN))
    async def create_organization(body: CreateOrganization, user: CurrentUser) -> OrganizationOut:
        """Make an organization; the caller owns it."""
        return await organizations.create(user, body)

    @routes.get("")
    async def list_organizations(user: CurrentUser, include_archived: bool = False) -> list[OrganizationSummary]:
        """The caller's organizations with his role in each; of archived ones only those that he owns."""
        return await organizations.list_own(user, archived=include_archived)

    @routes.get("/{org_id}", responses=problems(missing))
    async def get_organization(org_id: UUID, user: CurrentUser) -> OrganizationOut:
        """One organization."""
        return await organizations.get(user, str(org_id))

    @routes.patch("/{org_id}", responses=problems(missing))
    async def update_organization(org_id: UUID, body: UpdateOrganization, user: CurrentUser) -> OrganizationOut:
        """Change an organization; slug and owner stay."""
        return await organizations.update(user, str(org_id), body)

    @routes.delete("/{org_id}", responses=problems(missing))
    async def archive_organization(org_id: UUID, user: CurrentUser) -> MessageOut:
        """Archive an organization; only owners may."""
        await organizations.archive(user, str(org_id))
        return MessageOut(message="The organization was archived.")

    @routes.post("/{org_id}/restore", responses=problems(missing, errors.ORGANIZATION_IS_ACTIVE))
    async def restore_organization(org_id: UUID, user: CurrentUser) -> OrganizationOut:
        """Open an archived organization again; only its owners may."""
        return await organizations.restore(user, str(org_id))

    @routes.post("/{org_id}/transfer", responses=problems(missing, errors.MEMBER_NOT_FOUND))
    async def transfer_organization(org_id: UUID, body: TransferOwnership, user: CurrentUser) -> OrganizationOut:
        """Make another member the owner; the caller becomes an admin unless he stays an owner."""
        return await organizations.transfer(user, str(org_id), body)

    @routes.post("/{org_id}/leave", responses=problems(missing, errors.LAST_OWNER, errors.MEMBER_NOT_FOUND))
    async def leave_organization(org_id: UUID, user: CurrentUser) -> MessageOut:
        """End the own membership; the last owner cannot."""
        await members.leave(user, str(org_id))
        return MessageOut(message="You left the organization.")

    @routes.get("/{org_id}/debug/owner-info", responses=problems(missing))
    async def owner_info(org_id: UUID, user: CurrentUser) -> OwnerInfo:
        """Who owns an organization; for platform super admins."""
        return await organizations.owner_info(str(org_id))

    @routes.post(
        "/{org_id}/members",
        status_code=201,
        responses=problems(
            missing, errors.ROLE_NOT_FOUND, errors.USER_NOT_FOUND, errors.ALREADY_MEMBER, errors.ROLE_EXCEEDS_OWN
        ),
    )
    async def add_member(org_id: UUID, body: AddMember, user: CurrentUser) -> MembershipOut:
        """Add a user or an agent with a role."""
        return await members.add(user, str(org_id), body)

    @routes.get("/{org_id}/members", responses=problems(missing))
    async def list_members(
        org_id: UUID, user: CurrentUser, limit: Limit = 1000, offset: Offset = 0
    ) -> list[MembershipOut]:
        """The members in the order of joining."""
        return await members.list(user, str(org_id), limit, offset)

    @routes.patch(
        "/{org_id}/members/{member_id}",
        responses=problems(
            missing, errors.MEMBER_NOT_FOUND, errors.ROLE_NOT_FOUND, errors.ROLE_EXCEEDS_OWN, errors.LAST_OWNER
        ),
    )
    async def change_member(org_id: UUID, member_id: UUID, body: ChangeMember, user: CurrentUser) -> MembershipOut:
        """Give a member another role."""
        return await members.change(user, str(org_id), str(member_id), str(body.role_id))

    @routes.delete(
        "/{org_id}/members/{member_id}",
        responses=problems(missing, errors.MEMBER_NOT_FOUND, errors.ROLE_EXCEEDS_OWN, errors.LAST_OWNER),
    )
    async def remove_member(org_id: UUID, member_id: UUID, user: CurrentUser) -> MessageOut:
        """Remove a member, or leave."""
        await members.remove(user, str(org_id), str(member_id))
        return MessageOut(message="The member was removed.")

    @routes.get("/{org_id}/roles", responses=problems(missing))
    async def list_roles(org_id: UUID, user: CurrentUser, include_system: bool = True) -> Sequence[RoleOut]:
        """The roles of the organization and the system's."""
        return await roles.list(user, str(org_id), include_system=include_system)

    @routes.post(
        "/{org_id}/roles",
        status_code=201,
        responses=problems(
            missing,
            errors.ROLE_NOT_FOUND,
            errors.ROLE_NAME_TAKEN,
            errors.ROLE_EXCEEDS_OWN,
            errors.ROLE_CYCLE,
            errors.TOO_MANY_ROLES,
        ),
    )
    async def create_role(org_id: UUID, body: CreateRole, user: CurrentUser) -> RoleOut:
        """Make a role; nobody can grant more than he may do himself."""
        return await roles.create(user, str(org_id), body)

    @routes.patch(
        "/{org_id}/roles/{role_id}",
        responses=problems(
            missing,
            errors.ROLE_NOT_FOUND,
            errors.ROLE_IS_SYSTEM,
            errors.ROLE_NAME_TAKEN,
            errors.ROLE_CYCLE,
            errors.ROLE_EXCEEDS_OWN,
        ),
    )
    async def update_role(org_id: UUID, role_id: UUID, body: UpdateRole, user: CurrentUser) -> RoleOut:
        """Change a role; its members' permissions follow."""
        return await roles.update(user, str(org_id), str(role_id), body)

    @routes.delete(
        "/{org_id}/roles/{role_id}",
        responses=problems(
            missing, errors.ROLE_NOT_FOUND, errors.ROLE_IS_SYSTEM, errors.ROLE_IN_USE, errors.ROLE_EXCEEDS_OWN
        ),
    )
    async def delete_role(org_id: UUID, role_id: UUID, user: CurrentUser) -> MessageOut:
        """Delete a role that nobody uses."""
        await roles.delete(user, str(org_id), str(role_id))
        return MessageOut(message="The role was deleted.")

    return routes
