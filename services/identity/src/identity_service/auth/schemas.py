"""Requests and answers of `/auth`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, EmailStr, Field, StringConstraints

from identity_service.auth import rules
from identity_service.auth.tables import ApiKey
from identity_service.tokens import rules as token_rules
from identity_service.tokens.tables import Session
from identity_service.users.tables import User


def _strong(password: str) -> str:
    problem = rules.password_problem(password)
    if problem is not None:
        raise ValueError(problem)
    return password


Email = Annotated[EmailStr, AfterValidator(rules.normal_email), Field(max_length=255)]
NewPassword = Annotated[
    str, AfterValidator(_strong), Field(min_length=rules.PASSWORD_MIN, max_length=rules.PASSWORD_MAX)
]
Password = Annotated[str, Field(max_length=1000)]
AccountSecret = Annotated[str, Field(min_length=1, max_length=200)]
FullName = Annotated[str, Field(max_length=255)]
Department = Annotated[str, Field(max_length=100)]
Scope = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(:[a-z_]+)*:([a-z_]+|\*)$|^\*:\*$", max_length=100)]


class Register(BaseModel):
    """A new account."""

    email: Email
    password: NewPassword
    full_name: FullName | None = None
    department: Department | None = None
    referral_source: Annotated[str, Field(max_length=100)] | None = None


class Login(BaseModel):
    """Address and password."""

    email: Email
    password: Password


class Refresh(BaseModel):
    """The refresh token; without it the cookie counts."""

    refresh_token: Annotated[str, Field(max_length=4096)] | None = None


class UpdateMe(BaseModel):
    """What a user may change about himself; `attributes` are merged, null removes a key."""

    full_name: FullName | None = None
    department: Department | None = None
    attributes: dict[str, Any] | None = None


class ChangePassword(BaseModel):
    """The old and the new password."""

    current_password: Password
    new_password: NewPassword


class CreateApiKey(BaseModel):
    """A new API key. `scopes` are permission strings; none means all that the user may do."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    scopes: Annotated[list[Scope], Field(max_length=100)] = []
    expires_in_days: Annotated[int, Field(ge=1, le=365)] | None = None
    organization_id: Annotated[str, Field(max_length=64)] | None = None


class RotateApiKey(BaseModel):
    """How long the old key works beside the new one; 0 ends it at once."""

    grace_hours: Annotated[int, Field(ge=0, le=168)] = 24


class SetPassword(BaseModel):
    """A first password."""

    new_password: NewPassword


class AddressOnly(BaseModel):
    """Whose account it is about."""

    email: Email


class VerifyEmail(BaseModel):
    """The secret of a mailed link."""

    token: AccountSecret


class ResetPassword(BaseModel):
    """The secret of a mailed link and the new password."""

    token: AccountSecret
    new_password: NewPassword


class MessageOut(BaseModel):
    """One sentence."""

    message: str


class TokenOut(BaseModel):
    """A pair of tokens; `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "bearer"
    expires_in: int

    def cookies(self) -> tuple[rules.Cookie, ...]:
        """The same pair as the contract's cookies."""
        return rules.session_cookies(self.access_token, self.refresh_token, self.expires_in)


class UserOut(BaseModel):
    """An account as its owner sees it."""

    id: str
    email: str
    full_name: str | None
    department: str | None
    is_active: bool
    is_verified: bool
    is_super_admin: bool
    avatar_url: str | None
    attributes: dict[str, Any] | None
    waitlist_status: str
    created_at: datetime
    last_login_at: datetime | None

    @classmethod
    def of(cls, user: User) -> UserOut:
        """From the row."""
        return cls(
            id=user.id,
            email=user.email,
            full_name=user.full_name,
            department=user.department,
            is_active=user.is_active,
            is_verified=user.is_verified,
            is_super_admin=user.is_super_admin,
            avatar_url=user.avatar_url,
            attributes=rules.visible_attributes(user.attributes),
            waitlist_status=user.waitlist_status,
            created_at=user.created_at,
            last_login_at=user.last_login_at,
        )


class ApiKeyOut(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    key_prefix: str
    scopes: list[str]
    is_active: bool
    last_used_at: datetime | None
    expires_at: datetime | None
    created_at: datetime
    organization_id: str | None

    @classmethod
    def of(cls, key: ApiKey) -> ApiKeyOut:
        """From the row."""
        return cls(
            id=key.id,
            name=key.name,
            key_prefix=key.key_prefix,
            scopes=key.scopes,
            is_active=key.is_active,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
            created_at=key.created_at,
            organization_id=key.organization_id,
        )


class ApiKeyWithSecretOut(ApiKeyOut):
    """An API key with its secret, shown this once."""

    key: str


class SessionOut(BaseModel):
    """A sign-in that still stands. `last_used_at` is when its tokens were made last."""

    id: str
    device: str
    user_agent: str | None
    address: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool

    @classmethod
    def of(cls, session: Session, *, is_current: bool) -> SessionOut:
        """From the row."""
        return cls(
            id=session.id,
            device=token_rules.device_of(session.user_agent),
            user_agent=session.user_agent,
            address=session.address,
            created_at=session.created_at,
            last_used_at=session.rotated_at,
            expires_at=session.expires_at,
            is_current=is_current,
        )


class SessionsOut(BaseModel):
    """The live sessions, the one used last first."""

    sessions: list[SessionOut]


class WaitlistOut(BaseModel):
    """A page of the waiting list."""

    users: list[UserOut]
    total: int
    limit: int
    offset: int


class WaitlistApprovedOut(BaseModel):
    """Who was admitted."""

    message: str
    user: UserOut


class WaitlistAllApprovedOut(BaseModel):
    """How many were admitted."""

    message: str
    count: int
