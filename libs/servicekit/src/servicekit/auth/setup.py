"""Puts the authenticator of a service together from its settings, database and channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servicekit.auth.api_keys import VerifyApiKey
from servicekit.auth.authenticator import Authenticator
from servicekit.auth.feed import AccessFeed
from servicekit.auth.keys import FetchJwks, JwksCache, http_fetch
from servicekit.auth.memberships import FetchMemberships, MembershipDirectory, MembershipSource
from servicekit.auth.replica import AccessReplica, rebuild
from servicekit.auth.revocations import Revocations, RevocationSource
from servicekit.auth.tokens import TokenVerifier
from servicekit.clock import wall_s

if TYPE_CHECKING:
    from servicekit.db import Database
    from servicekit.events.replicas import ReplicaSource
    from servicekit.rpc import RpcChannels
    from servicekit.settings import ServiceSettings


def build_authenticator(
    settings: ServiceSettings,
    db: Database,
    channels: RpcChannels | None = None,
    *,
    fetch_jwks: FetchJwks | None = None,
    membership_source: MembershipSource | None = None,
    revocation_source: RevocationSource | None = None,
    fetch_memberships: FetchMemberships | None = None,
    verify_api_key: VerifyApiKey | None = None,
) -> Authenticator:
    """The authenticator of one process.

    By default memberships and revocations come from the replica tables, refreshes and API keys from identity by RPC,
    and keys from `settings.jwks_url`. Identity gives its own tables, keys and API keys instead.
    """
    replica = AccessReplica(db)
    if channels is not None and "identity" in settings.rpc_targets:
        from servicekit.auth.identity import IdentityClient

        client = IdentityClient(channels.channel("identity"))
        fetch_memberships = fetch_memberships or client.memberships_of
        verify_api_key = verify_api_key or client.verify_api_key
    keys = JwksCache(fetch_jwks or http_fetch(settings.jwks_url))
    verifier = TokenVerifier(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience, clock=wall_s)
    memberships = MembershipDirectory(membership_source or replica, fetch_memberships)
    revocations = Revocations(clock=wall_s)
    feed = AccessFeed(db, revocation_source or replica, revocations, memberships)
    return Authenticator(
        verifier,
        memberships,
        revocations,
        verify_api_key=verify_api_key,
        allowed_origins=[settings.public_url, *settings.cors_origins],
        companions=[feed],
        clock=wall_s,
    )


def access_replica_source(db: Database, channels: RpcChannels) -> ReplicaSource:
    """The rebuild of `replica_memberships` and `replica_revocations` from identity's snapshots.

    Part of `make rebuild` in every service but identity.
    """
    from servicekit.auth.identity import IdentityClient
    from servicekit.events.replicas import ReplicaSource

    async def run() -> int:
        client = IdentityClient(channels.channel("identity"))
        return await rebuild(db, client.membership_snapshot, client.revocation_snapshot)

    return ReplicaSource("access", run)
