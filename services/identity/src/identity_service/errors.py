"""Every error this service answers with."""

from __future__ import annotations

from servicekit.errors import ErrorSpec, Kind

BAD_CREDENTIALS = ErrorSpec("identity.bad_credentials", Kind.UNAUTHENTICATED, "The address or the password is wrong.")
LOCKED_OUT = ErrorSpec("identity.locked_out", Kind.RATE_LIMITED, "Too many failed sign-ins; try again later.", 60.0)
WRONG_PASSWORD = ErrorSpec("identity.wrong_password", Kind.REFUSED, "The current password is wrong.")
NO_PASSWORD = ErrorSpec("identity.no_password", Kind.REFUSED, "This account has no password yet; set one.")
PASSWORD_IS_SET = ErrorSpec("identity.password_is_set", Kind.CONFLICT, "This account has a password; change it.")
BAD_ACCOUNT_TOKEN = ErrorSpec(
    "identity.bad_account_token", Kind.REFUSED, "This link was used already or has run out; ask for another."
)
EMAIL_NOT_VERIFIED = ErrorSpec("identity.email_not_verified", Kind.FORBIDDEN, "Confirm your e-mail address first.")
SESSION_NOT_FOUND = ErrorSpec("identity.session_not_found", Kind.NOT_FOUND, "This session does not exist.")
BAD_REFRESH_TOKEN = ErrorSpec("identity.bad_refresh_token", Kind.UNAUTHENTICATED, "Sign in again.")
HASHING_BUSY = ErrorSpec("identity.busy", Kind.UNAVAILABLE, "Too many sign-ins at once; try again.", 1.0)
USER_NOT_FOUND = ErrorSpec("identity.user_not_found", Kind.NOT_FOUND, "This user does not exist.")
NOT_ON_YOURSELF = ErrorSpec(
    "identity.not_on_yourself", Kind.CONFLICT, "Nobody suspends himself or changes his own rights on the platform."
)
SOLE_OWNER = ErrorSpec(
    "identity.sole_owner", Kind.CONFLICT, "Give your organizations another owner or archive them first."
)
DELETION_NOT_FOUND = ErrorSpec("identity.deletion_not_found", Kind.NOT_FOUND, "This account is not about to end.")
AVATAR_NOT_FOUND = ErrorSpec("identity.avatar_not_found", Kind.NOT_FOUND, "There is no such picture.")
API_KEY_NOT_FOUND = ErrorSpec("identity.api_key_not_found", Kind.NOT_FOUND, "This API key does not exist.")
TOO_MANY_API_KEYS = ErrorSpec("identity.too_many_api_keys", Kind.CONFLICT, "End an API key before making another.")
ORGANIZATION_NOT_FOUND = ErrorSpec(
    "identity.organization_not_found", Kind.NOT_FOUND, "This organization does not exist."
)
SLUG_TAKEN = ErrorSpec("identity.slug_taken", Kind.REFUSED, "This slug is taken.")
ORGANIZATION_IS_ACTIVE = ErrorSpec(
    "identity.organization_is_active", Kind.CONFLICT, "This organization is not archived."
)
INVITATION_NOT_FOUND = ErrorSpec(
    "identity.invitation_not_found", Kind.NOT_FOUND, "This invitation does not exist, was answered, or has run out."
)
INVITATION_EXISTS = ErrorSpec("identity.invitation_exists", Kind.CONFLICT, "This address is invited already.")
INVITATION_FOR_ANOTHER = ErrorSpec(
    "identity.invitation_for_another", Kind.FORBIDDEN, "This invitation is for another address."
)
TOO_MANY_INVITATIONS = ErrorSpec(
    "identity.too_many_invitations", Kind.CONFLICT, "Too many invitations are open; revoke some."
)
TOO_MANY_ROLES = ErrorSpec("identity.too_many_roles", Kind.CONFLICT, "Delete a role before making another.")
ROLE_NOT_FOUND = ErrorSpec("identity.role_not_found", Kind.NOT_FOUND, "This role does not exist.")
ROLE_IS_SYSTEM = ErrorSpec("identity.role_is_system", Kind.REFUSED, "A system role cannot be changed.")
ROLE_IN_USE = ErrorSpec("identity.role_in_use", Kind.CONFLICT, "Members or other roles still use this role.")
ROLE_NAME_TAKEN = ErrorSpec("identity.role_name_taken", Kind.CONFLICT, "A role of this name exists.")
ROLE_CYCLE = ErrorSpec("identity.role_cycle", Kind.CONFLICT, "A role cannot inherit from itself.")
ROLE_EXCEEDS_OWN = ErrorSpec(
    "identity.role_exceeds_own", Kind.FORBIDDEN, "Nobody can grant more than he may do himself."
)
MEMBER_NOT_FOUND = ErrorSpec("identity.member_not_found", Kind.NOT_FOUND, "This member does not exist.")
ALREADY_MEMBER = ErrorSpec("identity.already_member", Kind.CONFLICT, "This member belongs to the organization already.")
LAST_OWNER = ErrorSpec("identity.last_owner", Kind.CONFLICT, "An organization keeps at least one owner.")
SERVICE_REFUSED = ErrorSpec("identity.service_refused", Kind.UNAUTHENTICATED, "Unknown service or wrong secret.")
NOT_APPROVED = ErrorSpec("identity.not_approved", Kind.FORBIDDEN, "This account waits for approval.")
PROVIDER_NOT_CONFIGURED = ErrorSpec(
    "identity.provider_not_configured", Kind.REFUSED, "Signing in with this provider is not set up here."
)
PROVIDER_UNREACHABLE = ErrorSpec(
    "identity.provider_unreachable", Kind.UNAVAILABLE, "The provider does not answer; try again.", 5.0
)
PROVIDER_NOT_CONNECTED = ErrorSpec(
    "identity.provider_not_connected", Kind.NOT_FOUND, "No account of this provider is connected."
)
LAST_SIGN_IN_METHOD = ErrorSpec(
    "identity.last_sign_in_method", Kind.REFUSED, "Set a password first: this is the only way to sign in."
)
SOURCE_NOT_CONNECTED = ErrorSpec(
    "identity.source_not_connected", Kind.REFUSED, "That user has no account of this provider connected."
)
CREDENTIAL_NOT_FOUND = ErrorSpec("identity.credential_not_found", Kind.NOT_FOUND, "There is no such key.")
TOO_MANY_CREDENTIALS = ErrorSpec("identity.too_many_credentials", Kind.CONFLICT, "Delete a key before adding another.")
