"""The composition root: everything this service is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from identity_service import errors, replica
from identity_service.access import ACCESS
from identity_service.audit import routes as audit_routes
from identity_service.audit.service import AuditService
from identity_service.auth import account_routes, api_key_routes, api_key_service, waitlist_routes
from identity_service.auth import routes as auth_routes
from identity_service.auth.account_service import AccountService
from identity_service.auth.adapters import Argon2Passwords, RedisLoginGuard
from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.service import AuthService
from identity_service.auth.waitlist_service import WaitlistService
from identity_service.clients import SnapshotClient
from identity_service.credentials import routes as credentials_routes
from identity_service.credentials import service as credentials_service
from identity_service.credentials.adapters import HttpProviders
from identity_service.credentials.service import CredentialService
from identity_service.directory import admin_routes as directory_admin_routes
from identity_service.directory import routes as directory_routes
from identity_service.directory.admin_service import UserAdminService
from identity_service.directory.deletion_service import DeletionService
from identity_service.directory.export_service import ExportService
from identity_service.directory.service import ProfileService
from identity_service.envelope.rules import Envelope
from identity_service.mail.adapters import SmtpServer
from identity_service.mail.service import MailService
from identity_service.oauth import routes as oauth_routes
from identity_service.oauth import service as oauth_service
from identity_service.oauth.adapters import providers_of
from identity_service.oauth.service import OAuthService
from identity_service.oauth.tokens_service import ProviderTokens
from identity_service.onboarding import routes as onboarding_routes
from identity_service.onboarding import service as onboarding_service
from identity_service.onboarding.service import OnboardingService
from identity_service.organizations import invitation_routes, key_routes
from identity_service.organizations import routes as organizations_routes
from identity_service.organizations.invitation_service import InvitationService
from identity_service.organizations.key_service import KeyService
from identity_service.organizations.member_service import MemberService
from identity_service.organizations.role_service import RoleService
from identity_service.organizations.service import OrganizationService
from identity_service.replica import Rebuild
from identity_service.rpc import IdentityServicer
from identity_service.settings import Settings
from identity_service.sources import OwnApiKeys, OwnMemberships, OwnRevocations
from identity_service.tokens import routes as tokens_routes
from identity_service.tokens.service import TokenService
from omoios.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from servicekit.auth.setup import build_authenticator
from servicekit.db import Database
from servicekit.events import Bus, ReplicaSource
from servicekit.host import Job, Service, run
from servicekit.logging import get_logger
from servicekit.redis import RedisClient
from servicekit.rpc import RpcChannels, RpcServicer

_log = get_logger(__name__)


def build(settings: Settings) -> Service:
    """The service with all its parts, not started."""
    db = Database(settings)
    redis = RedisClient(settings)
    passwords = Argon2Passwords(settings.hashing_threads, settings.hashing_queue)
    guard = RedisLoginGuard(redis.raw, settings.login_failures, settings.login_window_s)
    envelope = Envelope.from_base64(settings.envelope_key_text)
    audit = AuditService(db, envelope)
    mail = MailService(db, settings, envelope, SmtpServer(settings) if settings.smtp_host else None)
    tokens = TokenService(db, settings, envelope, mail)
    auth = AuthService(db, tokens, passwords, guard)
    api_keys = ApiKeyService(db, tokens)
    organizations = OrganizationService(db, settings)
    roles = RoleService(db)
    members = MemberService(db)
    onboarding = OnboardingService(db)
    channels = RpcChannels(settings)
    rebuild = Rebuild(db, SnapshotClient(channels))
    invitations = InvitationService(db, settings, mail)
    asked = HttpProviders(settings.reachable_private_hosts)
    credentials = CredentialService(db, envelope, asked)
    providers = providers_of(settings)
    oauth = OAuthService(db, settings, envelope, providers, api_keys, tokens)
    accounts = AccountService(db, settings, tokens, mail, passwords, api_keys, guard, oauth.forget_all)
    provider_tokens = ProviderTokens(db, providers, oauth, credentials)

    profiles = ProfileService(db, settings, organizations)
    # Every room that keeps something of a user stands in both lists.
    erasers = [api_key_service.erase, oauth_service.erase, credentials_service.erase, onboarding_service.erase]
    deletions = DeletionService(db, settings, auth, api_keys, tokens, mail, erasers)
    exports = ExportService(
        db,
        audit,
        {
            "profile": auth.me,
            "preferences": profiles.preferences,
            "organizations": partial(organizations.list_own, archived=True),
            "invitations": invitations.list_own,
            "api_keys": api_keys.list_api_keys,
            "connected_accounts": oauth.connected,
            "credentials": credentials.list_own,
            "onboarding": onboarding.own,
        },
    )

    @asynccontextmanager
    async def seeds() -> AsyncIterator[None]:
        await organizations.seed()
        await tokens.ensure_keys()
        if not mail.enabled:
            _log.warning("no_mail_server", effect="no mail is sent, no address has to be confirmed")
        yield
        passwords.close()
        await asked.close()

    return Service(
        name="identity",
        settings=settings,
        access=ACCESS,
        db=db,
        redis=redis,
        channels=channels,
        bus=Bus(settings),
        authenticator=build_authenticator(
            settings,
            db,
            fetch_jwks=tokens.jwks,
            membership_source=OwnMemberships(organizations),
            revocation_source=OwnRevocations(),
            verify_api_key=OwnApiKeys(api_keys).verify,
        ),
        routers=[
            tokens_routes.router(tokens),
            audit_routes.router(audit),
            auth_routes.router(auth, secure_cookies=settings.is_production),
            account_routes.router(accounts),
            api_key_routes.router(api_keys),
            waitlist_routes.router(WaitlistService(db)),
            organizations_routes.router(organizations, members, roles),
            invitation_routes.router(invitations),
            key_routes.router(KeyService(db, api_keys)),
            *(
                oauth_routes.router(oauth, prefix=prefix, tag=tag, secure_cookies=settings.is_production)
                # Clients know the second; the first is the documented one.
                for prefix, tag in (("/api/v1/oauth", "oauth"), ("/api/v1/auth/oauth", "auth_oauth"))
            ),
            credentials_routes.router(credentials),
            onboarding_routes.router(onboarding),
            directory_routes.router(profiles, deletions, exports),
            directory_admin_routes.router(UserAdminService(db, tokens)),
        ],
        servicers=[
            RpcServicer(
                add_IdentityServiceServicer_to_server,
                IdentityServicer(tokens, auth, api_keys, organizations, provider_tokens),
                "omoios.identity.v1.IdentityService",
            )
        ],
        jobs=[
            # Two seconds: another instance's rotation is known here long before the next key signs.
            Job("reload-signing-keys", every_s=2.0, run=tokens.reload),
            # A second: so long an entry of the audit trail stands outside its chain.
            Job("seal-audit", every_s=1.0, run=audit.seal_due, leader=True),
            # Woken by the commit that queued a mail; five seconds is what a lost hint and a repetition cost.
            Job("send-mails", every_s=5.0, run=mail.send_due, leader=True, timeout_s=120.0, wake=mail.queued),
            # A minute: an invitation's time is told in days.
            Job("expire-invitations", every_s=60.0, run=invitations.expire_due, leader=True),
            Job("purge-mails", every_s=3600.0, run=mail.purge, leader=True),
            Job("purge-oauth-states", every_s=3600.0, run=oauth.purge, leader=True),
            Job("purge-account-tokens", every_s=3600.0, run=accounts.purge, leader=True),
            # A minute: the grace period is told in days.
            Job("erase-accounts", every_s=60.0, run=deletions.erase_due, leader=True),
            Job("purge-tokens", every_s=3600.0, run=tokens.purge, leader=True),
        ],
        consumers=[replica.consumers()],
        replicas=[
            ReplicaSource("projects", rebuild.projects),
            ReplicaSource("repositories", rebuild.repositories),
            ReplicaSource("plans", rebuild.plans),
        ],
        lifespans=[seeds],
        errors=errors,
    )


if __name__ == "__main__":
    run(build(Settings()))
