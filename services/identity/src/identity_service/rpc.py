"""The gRPC servicer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from identity_service.auth.api_key_service import ApiKeyService
from identity_service.auth.service import AuthService
from identity_service.errors import API_KEY_NOT_FOUND
from identity_service.oauth.tokens_service import ProviderTokens
from identity_service.organizations.service import MembershipFact, OrganizationService
from identity_service.organizations.tables import Organization
from identity_service.tokens.service import IssuedToken, SandboxSubject, TokenService
from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1 import identity_pb2_grpc
from servicekit.errors import invalid

MAX_BATCH = 500
REVOCABLE = frozenset({"agent", "sandbox"})


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """`omoios.identity.v1.IdentityService`."""

    def __init__(
        self,
        tokens: TokenService,
        auth: AuthService,
        api_keys: ApiKeyService,
        organizations: OrganizationService,
        provider_tokens: ProviderTokens,
    ) -> None:
        self._tokens = tokens
        self._auth = auth
        self._api_keys = api_keys
        self._organizations = organizations
        self._provider_tokens = provider_tokens

    async def IssueServiceToken(
        self, request: pb.IssueServiceTokenRequest, context: Any
    ) -> pb.IssueServiceTokenResponse:
        issued = self._tokens.service_token(request.service, request.secret)
        return pb.IssueServiceTokenResponse(token=issued.token, expires_at=_timestamp(issued.expires_at))

    async def IssueSandboxTokens(
        self, request: pb.IssueSandboxTokensRequest, context: Any
    ) -> pb.IssueSandboxTokensResponse:
        _bounded("subjects", request.subjects)
        tokens = []
        for index, subject in enumerate(request.subjects):
            if not (subject.organization_id and subject.task_id and subject.sandbox_id and subject.attempt > 0):
                raise invalid(("subjects", index), "organization_id, task_id, sandbox_id and attempt are needed")
            issued = self._tokens.sandbox_token(
                SandboxSubject(
                    organization_id=subject.organization_id,
                    project_id=subject.project_id,
                    agent_id=subject.agent_id,
                    task_id=subject.task_id,
                    sandbox_id=subject.sandbox_id,
                    attempt=subject.attempt,
                ),
                request.ttl_s,
            )
            tokens.append(_sandbox_token(subject.sandbox_id, issued))
        return pb.IssueSandboxTokensResponse(tokens=tokens)

    async def IssueAgentToken(self, request: pb.IssueAgentTokenRequest, context: Any) -> pb.IssueAgentTokenResponse:
        if not (request.organization_id and request.agent_id):
            raise invalid("agent_id", "organization_id and agent_id are needed")
        issued = self._tokens.agent_token(request.organization_id, request.agent_id, request.ttl_s)
        return pb.IssueAgentTokenResponse(token=issued.token, expires_at=_timestamp(issued.expires_at))

    async def RevokePrincipal(self, request: pb.RevokePrincipalRequest, context: Any) -> pb.RevokePrincipalResponse:
        if request.principal_type not in REVOCABLE:
            raise invalid("principal_type", f"must be one of {', '.join(sorted(REVOCABLE))}", request.principal_type)
        if not request.principal_id:
            raise invalid("principal_id", "is needed")
        not_before = await self._tokens.revoke_principal(
            request.principal_type, request.principal_id, request.reason, request.organization_id or None
        )
        return pb.RevokePrincipalResponse(not_before=_timestamp(not_before))

    async def BatchGetMemberships(
        self, request: pb.BatchGetMembershipsRequest, context: Any
    ) -> pb.BatchGetMembershipsResponse:
        _bounded("user_ids", request.user_ids)
        facts = await self._organizations.memberships_of(list(request.user_ids))
        return pb.BatchGetMembershipsResponse(memberships=[_membership(fact) for fact in facts])

    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Any) -> pb.BatchGetUsersResponse:
        _bounded("ids", request.ids)
        users = await self._auth.users_by_id(list(request.ids))
        return pb.BatchGetUsersResponse(
            users=[
                pb.User(
                    id=user.id,
                    email=user.email,
                    full_name=user.full_name or "",
                    is_active=user.is_active,
                    is_verified=user.is_verified,
                    is_super_admin=user.is_super_admin,
                    avatar_url=user.avatar_url or "",
                )
                for user in users
            ]
        )

    async def BatchGetOrganizations(
        self, request: pb.BatchGetOrganizationsRequest, context: Any
    ) -> pb.BatchGetOrganizationsResponse:
        _bounded("ids", request.ids)
        rows = await self._organizations.organizations_by_id(list(request.ids))
        return pb.BatchGetOrganizationsResponse(organizations=[_organization(row) for row in rows])

    async def VerifyApiKey(self, request: pb.VerifyApiKeyRequest, context: Any) -> pb.VerifyApiKeyResponse:
        key = await self._api_keys.verify_api_key(request.key)
        if key is None:
            raise API_KEY_NOT_FOUND()
        return pb.VerifyApiKeyResponse(
            key_id=key.id,
            user_id=key.user_id,
            organization_id=key.organization_id or "",
            # A key made without scopes may do all that its user may.
            scopes=key.scopes or ["*:*"],
            expires_at=_timestamp(key.expires_at) if key.expires_at is not None else None,
        )

    async def GetProviderCredential(
        self, request: pb.GetProviderCredentialRequest, context: Any
    ) -> pb.GetProviderCredentialResponse:
        if not (request.user_id and request.provider):
            raise invalid("provider", "user_id and provider are needed")
        found = await self._provider_tokens.current(request.user_id, request.provider)
        return pb.GetProviderCredentialResponse(
            secret=found.secret,
            source=found.source,
            username=found.username or "",
            scopes=found.scopes,
            expires_at=_timestamp(found.expires_at) if found.expires_at is not None else None,
            base_url=found.base_url or "",
            model=found.model or "",
        )

    async def ListMembershipSnapshot(
        self, request: pb.ListMembershipSnapshotRequest, context: Any
    ) -> pb.ListMembershipSnapshotResponse:
        size = _page_size(request.page_size)
        user_id, _, organization_id = request.page_token.partition(":")
        facts = await self._organizations.page_memberships((user_id, organization_id), size)
        token = f"{facts[-1].user_id}:{facts[-1].organization_id}" if len(facts) == size else ""
        return pb.ListMembershipSnapshotResponse(
            memberships=[_membership(fact) for fact in facts], next_page_token=token
        )

    async def ListRevocationSnapshot(
        self, request: pb.ListRevocationSnapshotRequest, context: Any
    ) -> pb.ListRevocationSnapshotResponse:
        size = _page_size(request.page_size)
        type_, _, id_ = request.page_token.partition(":")
        rows = await self._tokens.page_revocations((type_, id_), size)
        token = f"{rows[-1].principal_type}:{rows[-1].principal_id}" if len(rows) == size else ""
        return pb.ListRevocationSnapshotResponse(
            revocations=[
                pb.Revocation(
                    principal_type=row.principal_type,
                    principal_id=row.principal_id,
                    not_before=_timestamp(row.not_before),
                )
                for row in rows
            ],
            next_page_token=token,
        )

    async def ListOrganizationSnapshot(
        self, request: pb.ListOrganizationSnapshotRequest, context: Any
    ) -> pb.ListOrganizationSnapshotResponse:
        size = _page_size(request.page_size)
        rows = await self._organizations.page_organizations(request.page_token, size)
        return pb.ListOrganizationSnapshotResponse(
            organizations=[_organization(row) for row in rows],
            next_page_token=rows[-1].id if len(rows) == size else "",
        )


def _bounded(field: str, values: Sequence[object]) -> None:
    if len(values) > MAX_BATCH:
        raise invalid(field, f"at most {MAX_BATCH} at once", len(values))


def _page_size(value: int) -> int:
    return min(max(value or MAX_BATCH, 1), MAX_BATCH)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _sandbox_token(sandbox_id: str, issued: IssuedToken) -> pb.SandboxToken:
    return pb.SandboxToken(sandbox_id=sandbox_id, token=issued.token, expires_at=_timestamp(issued.expires_at))


def _membership(fact: MembershipFact) -> pb.Membership:
    return pb.Membership(
        user_id=fact.user_id,
        organization_id=fact.organization_id,
        role=fact.role,
        permissions=sorted(fact.permissions),
        active=fact.active,
        version=fact.version,
    )


def _organization(row: Organization) -> pb.Organization:
    return pb.Organization(
        id=row.id,
        name=row.name,
        slug=row.slug,
        owner_id=row.owner_id,
        is_active=row.is_active,
        billing_email=row.billing_email or "",
        version=row.version,
        max_concurrent_agents=row.max_concurrent_agents,
        max_agent_runtime_hours=row.max_agent_runtime_hours,
    )
