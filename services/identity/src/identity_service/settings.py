"""Settings of this service."""

from __future__ import annotations

import re
from email.utils import parseaddr
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from servicekit.settings import ServiceSettings


class OAuthProvider(BaseModel):
    """A provider that people may sign in with.

    `kind` is the name where that is github, gitlab or google, else oidc, which needs its `issuer`. `base_url`: a GitHub
    Enterprise or GitLab server of one's own. `api_url`: where such a GitHub has its API, if not below `/api/v3`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    client_id: str = Field(min_length=1)
    client_secret: SecretStr
    kind: Literal["github", "gitlab", "google", "oidc"] | None = None
    base_url: str | None = None
    api_url: str | None = None
    issuer: str | None = None
    scopes: list[str] | None = None

    @field_validator("base_url", "api_url", "issuer")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("must be an http or https address")
        return value

    @field_validator("base_url", "api_url")
    @classmethod
    def _no_trailing_slash(cls, value: str | None) -> str | None:
        # An issuer keeps its slash: it is compared character by character.
        return value.rstrip("/") if value is not None else None


class Settings(ServiceSettings):
    """The base settings and what only identity needs."""

    http_port: int = Field(default=18101, ge=0, le=65535)
    rpc_port: int = Field(default=18201, ge=0, le=65535)

    max_requests: int = Field(default=100, ge=1)
    """Fewer than elsewhere: a flood of sign-ins is the load that this service is most likely to be put under."""

    service_secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    """Service name → SHA-256 (hex) of the secret with which it asks for its token."""
    access_token_ttl_s: int = Field(default=900, ge=60, le=3600)
    session_ttl_s: int = Field(default=7 * 24 * 3600, ge=3600)
    login_failures: int = Field(default=5, ge=1)
    login_window_s: int = Field(default=900, ge=1)
    hashing_threads: int = Field(default=2, ge=1, le=16)
    hashing_queue: int = Field(default=64, ge=1)
    """Sign-ins under way beside those that hash; more are answered 503."""

    waitlist: bool = False
    """Whether new accounts wait for an administrator before they may make organizations."""
    require_verified_email: bool | None = None
    """Whether making organizations and accepting invitations needs a confirmed address; unset: where mails are sent."""
    deletion_grace_days: int = Field(default=14, ge=0, le=90)
    """How long a user may take the deletion of his account back."""
    frontend_url: str = "http://localhost:3000"
    """The web client: where the links of mails lead."""
    smtp_host: str | None = None
    """The mail server; without one no mail is sent, and nobody is asked to confirm an address."""
    smtp_port: int = Field(default=587, ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """`tls` from the first byte (port 465), `starttls` on a plain connection, `none` for a server on this machine."""
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    mail_from: str = "OmoiOS <no-reply@omoios.invalid>"

    @property
    def needs_verified_email(self) -> bool:
        """Whether making organizations and accepting invitations needs a confirmed address."""
        return self.smtp_host is not None if self.require_verified_email is None else self.require_verified_email

    @property
    def mail_from_address(self) -> str:
        """The bare address of `mail_from`."""
        return parseaddr(self.mail_from)[1]

    @property
    def envelope_key_text(self) -> str | None:
        """`envelope_key` in the clear (base64)."""
        return self.envelope_key.get_secret_value() if self.envelope_key is not None else None

    @field_validator("frontend_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must be an http or https address")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _usable_mail_server(self) -> Self:
        if "@" not in self.mail_from_address or not self.mail_from.isascii():
            raise ValueError("mail_from: must be `Name <address>` in ASCII")
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("smtp_username and smtp_password: give both or neither")
        if self.smtp_username is not None and self.smtp_security == "none":
            raise ValueError("smtp_security: a password is not sent over a connection without TLS")
        if self.is_production and self.smtp_host is not None and self.mail_from_address.endswith(".invalid"):
            raise ValueError("mail_from: name the address that mails come from")
        return self

    oauth_providers: dict[str, OAuthProvider] = Field(default_factory=dict, repr=False)
    """Name in the path → how to reach the provider; only those with an entry are enabled."""
    oauth_redirect_uri: str | None = None
    """The web client's page where a sign-in ends; `/callback` of the client where not given."""
    reachable_private_hosts: list[str] = Field(default_factory=list)
    """Hosts with private addresses that a user's `base_url` may name all the same, such as a model server at home."""

    @property
    def oauth_landing_url(self) -> str:
        """`oauth_redirect_uri`, or what stands for it."""
        return self.oauth_redirect_uri or f"{self.frontend_url}/callback"

    @field_validator("oauth_providers")
    @classmethod
    def _usable_providers(cls, value: dict[str, OAuthProvider]) -> dict[str, OAuthProvider]:
        for name, provider in value.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,49}", name) or name in {"providers", "connected"}:
                raise ValueError(f"{name}: not a usable name")
            generic = provider.kind == "oidc" or (provider.kind is None and name not in {"github", "gitlab", "google"})
            if generic and provider.issuer is None:
                raise ValueError(f"{name}: an OpenID Connect provider needs its issuer")
        return value

    @model_validator(mode="after")
    def _tls_in_production(self) -> Self:
        if self.is_production:
            for name, provider in self.oauth_providers.items():
                for address in (provider.base_url, provider.api_url, provider.issuer):
                    if address is not None and not address.startswith("https://"):
                        raise ValueError(f"oauth_providers: {name} must be reached by https")
        return self

    @field_validator("service_secrets")
    @classmethod
    def _digests(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if len(digest) != 64 or any(character not in "0123456789abcdef" for character in digest):
                raise ValueError(f"{name}: not a SHA-256 in lower-case hex")
        return value
