"""Who may call what of this service."""

from __future__ import annotations

from servicekit.auth import ANY_SERVICE, PUBLIC, SIGNED_IN, WITHOUT_TOKEN, Access, AccessTable

# A session is the user's own: an API key cannot end it, change the password or make further keys.
_OWN_SESSION = Access(principals=SIGNED_IN)

_OAUTH = {
    "list_providers": PUBLIC,
    "redirect_uri": PUBLIC,
    "sign_in_url": PUBLIC,
    "sign_in": PUBLIC,
    "callback": PUBLIC,
    "list_connected": _OWN_SESSION,
    "connect": _OWN_SESSION,
    "disconnect": _OWN_SESSION,
    "copy_tokens": Access(platform=True),
}

ACCESS = AccessTable(
    operations={
        **{f"{mount}.{operation}": access for mount in ("oauth", "auth_oauth") for operation, access in _OAUTH.items()},
        "credentials.list_credentials": _OWN_SESSION,
        "credentials.save_credential": _OWN_SESSION,
        "credentials.change_credential": _OWN_SESSION,
        "credentials.delete_credential": _OWN_SESSION,
        "credentials.validate_credential": _OWN_SESSION,
        "tokens.jwks": PUBLIC,
        "auth.register": PUBLIC,
        "auth.login": PUBLIC,
        "auth.refresh": PUBLIC,
        "auth.logout": _OWN_SESSION,
        "auth.me": Access(),
        "auth.update_me": _OWN_SESSION,
        "auth.change_password": _OWN_SESSION,
        "auth.create_api_key": _OWN_SESSION,
        "auth.list_api_keys": _OWN_SESSION,
        "auth.end_api_key": _OWN_SESSION,
        "audit.list_organization_audit": Access("org:audit:read"),
        "audit.list_own_audit": Access(),
        "audit.list_user_audit": Access(platform=True),
        "organizations.create_organization": _OWN_SESSION,
        "organizations.list_organizations": Access(),
        "organizations.get_organization": Access("org:read"),
        "organizations.update_organization": Access("org:write"),
        "organizations.archive_organization": Access("org:delete"),
        # Its members have lost their permissions with the archiving: the use case reads who owned it.
        "organizations.restore_organization": _OWN_SESSION,
        "organizations.transfer_organization": Access("org:delete", principals=SIGNED_IN),
        "organizations.leave_organization": _OWN_SESSION,
        "organizations.invite": Access("org:members:write"),
        "organizations.list_invitations": Access("org:members:read"),
        "organizations.resend_invitation": Access("org:members:write"),
        "organizations.revoke_invitation": Access("org:members:write"),
        "organizations.list_own_invitations": _OWN_SESSION,
        "organizations.look_up_invitation": PUBLIC,
        "organizations.accept_invitation": _OWN_SESSION,
        "organizations.decline_invitation": _OWN_SESSION,
        "organizations.accept_own_invitation": _OWN_SESSION,
        "organizations.decline_own_invitation": _OWN_SESSION,
        "organizations.owner_info": Access(platform=True),
        "organizations.add_member": Access("org:members:write"),
        "organizations.list_members": Access("org:members:read"),
        "organizations.change_member": Access("org:members:write"),
        "organizations.remove_member": Access("org:members:delete"),
        "organizations.list_roles": Access("org:read"),
        "organizations.create_role": Access("org:write"),
        "organizations.update_role": Access("org:write"),
        "organizations.delete_role": Access("org:write"),
    },
    rpcs={
        "IssueServiceToken": WITHOUT_TOKEN,
        "IssueSandboxTokens": frozenset({"agents"}),
        "IssueAgentToken": frozenset({"agents"}),
        "RevokePrincipal": frozenset({"agents"}),
        "BatchGetMemberships": ANY_SERVICE,
        "BatchGetUsers": ANY_SERVICE,
        "BatchGetOrganizations": ANY_SERVICE,
        "VerifyApiKey": ANY_SERVICE,
        "GetProviderCredential": frozenset({"agents", "vcs"}),
        "ListMembershipSnapshot": ANY_SERVICE,
        "ListRevocationSnapshot": ANY_SERVICE,
        "ListOrganizationSnapshot": ANY_SERVICE,
    },
)
