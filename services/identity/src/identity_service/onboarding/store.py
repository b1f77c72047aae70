"""SQL of the onboarding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from identity_service.oauth.tables import OAuthIdentity
from identity_service.onboarding.tables import Onboarding
from identity_service.organizations.tables import Membership, Organization
from identity_service.replica import ReplicaPlan, ReplicaProject, ReplicaRepository
from servicekit.db import Tx


@dataclass(frozen=True, slots=True)
class Found:
    """The first of each thing that the user and his organizations have, None where there is none.

    `github`: the name there of the connected account. `organization`: (id, name). `repository`: (project id, GitHub
    owner, GitHub name, URL). `plan`: the tier.
    """

    github: str | None
    organization: tuple[str, str] | None
    repository: tuple[str, str | None, str | None, str] | None
    plan: str | None


async def locked(tx: Tx, user_id: str) -> Onboarding:
    """The user's progress, made if there is none, locked."""
    await tx.session.execute(insert(Onboarding).values(user_id=user_id).on_conflict_do_nothing())
    query = select(Onboarding).where(Onboarding.user_id == user_id).with_for_update()
    return (await tx.session.execute(query.execution_options(populate_existing=True))).scalar_one()


async def find(tx: Tx, user_id: str) -> Onboarding | None:
    """The user's progress, None when he never asked for it."""
    return (await tx.session.execute(select(Onboarding).where(Onboarding.user_id == user_id))).scalar_one_or_none()


async def change(tx: Tx, user_id: str, **values: Any) -> Onboarding:
    """Sets the given columns and raises `sync_version`; the row must exist."""
    statement = (
        update(Onboarding)
        .where(Onboarding.user_id == user_id)
        .values(sync_version=Onboarding.sync_version + 1, updated_at=func.now(), **values)
        .returning(Onboarding)
        .execution_options(populate_existing=True)
    )
    return (await tx.session.execute(statement)).scalar_one()


async def remove(tx: Tx, user_id: str) -> None:
    """Deletes the user's progress."""
    await tx.session.execute(delete(Onboarding).where(Onboarding.user_id == user_id))


async def found(tx: Tx, user_id: str, free_tier: str) -> Found:
    """What the user and his organizations have already."""
    github = select(OAuthIdentity.username, OAuthIdentity.provider_user_id).where(
        OAuthIdentity.user_id == user_id,
        OAuthIdentity.provider == "github",
        OAuthIdentity.sealed_access_token.is_not(None),
    )
    own = (
        select(Organization.id, Organization.name)
        .join(Membership, Membership.organization_id == Organization.id)
        .where(Membership.user_id == user_id, Organization.is_active)
    )
    organization = own.order_by(Membership.joined_at, Organization.id).limit(1)
    organization_ids = own.with_only_columns(Organization.id)
    repository = (
        select(
            ReplicaRepository.project_id,
            ReplicaRepository.github_owner,
            ReplicaRepository.github_repo,
            ReplicaRepository.url,
        )
        .outerjoin(ReplicaProject, ReplicaProject.project_id == ReplicaRepository.project_id)
        .where(
            ReplicaRepository.organization_id.in_(organization_ids),
            func.coalesce(ReplicaProject.status, "active") != "archived",
        )
        .order_by(ReplicaRepository.project_id)
        .limit(1)
    )
    plan = (
        select(ReplicaPlan.tier)
        .where(ReplicaPlan.organization_id.in_(organization_ids), ReplicaPlan.tier != free_tier)
        .order_by(ReplicaPlan.organization_id)
        .limit(1)
    )
    first = (await tx.session.execute(organization)).first()
    bound = (await tx.session.execute(repository)).first()
    connected = (await tx.session.execute(github)).first()
    return Found(
        github=(connected.username or connected.provider_user_id) if connected is not None else None,
        organization=(first.id, first.name) if first is not None else None,
        repository=(bound.project_id, bound.github_owner, bound.github_repo, bound.url) if bound is not None else None,
        plan=(await tx.session.execute(plan)).scalar_one_or_none(),
    )
