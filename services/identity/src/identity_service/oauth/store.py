"""SQL of provider identities and of sign-ins under way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update

from identity_service.oauth.tables import OAuthIdentity, OAuthState
from servicekit.db import Tx


async def add_state(tx: Tx, ttl_s: int, **values: Any) -> None:
    """Inserts a state that lives `ttl_s` seconds on the database's clock."""
    await tx.session.execute(
        insert(OAuthState).values(expires_at=func.clock_timestamp() + timedelta(seconds=ttl_s), **values)
    )


async def take_state(tx: Tx, digest: bytes) -> Row[str, str | None, bytes, str, bytes, bool] | None:
    """`(provider, user_id, sealed_verifier, nonce, browser_digest, live)`; the state is gone afterwards."""
    statement = (
        delete(OAuthState)
        .where(OAuthState.digest == digest)
        .returning(
            OAuthState.provider,
            OAuthState.user_id,
            OAuthState.sealed_verifier,
            OAuthState.nonce,
            OAuthState.browser_digest,
            (OAuthState.expires_at > func.clock_timestamp()).label("live"),
        )
    )
    return (await tx.session.execute(statement)).one_or_none()


async def purge_states(tx: Tx) -> None:
    """Deletes states that have expired."""
    await tx.session.execute(delete(OAuthState).where(OAuthState.expires_at < func.clock_timestamp()))


async def find_signing_in(tx: Tx, provider: str, provider_user_id: str) -> OAuthIdentity | None:
    """The identity that signs somebody in; locks the row."""
    query = select(OAuthIdentity).where(
        OAuthIdentity.provider == provider,
        OAuthIdentity.provider_user_id == provider_user_id,
        OAuthIdentity.signs_in,
    )
    return (await tx.session.execute(query.with_for_update())).scalar_one_or_none()


async def find(tx: Tx, user_id: str, provider: str, *, lock: bool = False) -> OAuthIdentity | None:
    """The user's identity at a provider."""
    query = select(OAuthIdentity).where(OAuthIdentity.user_id == user_id, OAuthIdentity.provider == provider)
    return (await tx.session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()


async def list_of(tx: Tx, user_id: str) -> Sequence[OAuthIdentity]:
    """The user's identities by provider; at most one for each."""
    query = select(OAuthIdentity).where(OAuthIdentity.user_id == user_id).order_by(OAuthIdentity.provider)
    return (await tx.session.execute(query)).scalars().all()


async def add(tx: Tx, **values: Any) -> None:
    """Inserts an identity. Raises IntegrityError where the provider's account signs somebody else in."""
    await tx.session.execute(insert(OAuthIdentity).values(**values))


async def change(tx: Tx, identity_id: str, **values: Any) -> None:
    """Sets the given columns and raises the version. Raises IntegrityError as `add` does."""
    await tx.session.execute(
        update(OAuthIdentity)
        .where(OAuthIdentity.id == identity_id)
        .values(version=OAuthIdentity.version + 1, updated_at=func.now(), **values)
    )


async def change_version(tx: Tx, identity_id: str, version: int, **values: Any) -> bool:
    """`change`, unless the identity was connected anew, or disconnected, since `version` was read."""
    statement = (
        update(OAuthIdentity)
        .where(OAuthIdentity.id == identity_id, OAuthIdentity.version == version)
        .values(version=OAuthIdentity.version + 1, updated_at=func.now(), **values)
        .returning(OAuthIdentity.id)
    )
    return (await tx.session.execute(statement)).one_or_none() is not None


async def remove(tx: Tx, identity_ids: Sequence[str]) -> None:
    """Deletes identities."""
    await tx.session.execute(delete(OAuthIdentity).where(OAuthIdentity.id.in_(identity_ids)))


async def claim_refresh(tx: Tx, identity_id: str, version: int, for_s: int) -> bool:
    """Whether this caller may exchange the refresh token now; nobody else may for `for_s` seconds."""
    statement = (
        update(OAuthIdentity)
        .where(
            OAuthIdentity.id == identity_id,
            OAuthIdentity.version == version,
            or_(
                OAuthIdentity.refreshing_until.is_(None),
                OAuthIdentity.refreshing_until < func.clock_timestamp(),
            ),
        )
        .values(refreshing_until=func.clock_timestamp() + timedelta(seconds=for_s))
        .returning(OAuthIdentity.id)
    )
    return (await tx.session.execute(statement)).one_or_none() is not None


async def release_refresh(tx: Tx, identity_id: str, version: int) -> None:
    """Lets others exchange the refresh token."""
    await tx.session.execute(
        update(OAuthIdentity)
        .where(OAuthIdentity.id == identity_id, OAuthIdentity.version == version)
        .values(refreshing_until=None)
    )


async def forget_tokens(tx: Tx, identity_id: str, version: int) -> bool:
    """Drops tokens that are worth nothing; the account still signs in."""
    return await change_version(
        tx,
        identity_id,
        version,
        sealed_access_token=None,
        sealed_refresh_token=None,
        access_expires_at=None,
        refreshing_until=None,
    )
