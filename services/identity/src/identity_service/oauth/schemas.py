"""Requests and answers of `/oauth`."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, EmailStr, Field

from identity_service.auth.rules import normal_email


class ProviderOut(BaseModel):
    """A provider that people may sign in with. `manage_url`: where its user sees what he granted."""

    name: str
    enabled: bool
    manage_url: str | None


class ProvidersOut(BaseModel):
    """All providers."""

    providers: list[ProviderOut]


class RedirectUriOut(BaseModel):
    """What has to be registered at the provider."""

    base_redirect_uri: str
    provider: str
    calculated_redirect_uri: str
    message: str


class ConnectedOut(BaseModel):
    """A provider's account that is connected."""

    provider: str
    username: str | None
    connected: bool = True


class ConnectedProvidersOut(BaseModel):
    """The caller's connected accounts."""

    providers: list[ConnectedOut]


class AuthUrlOut(BaseModel):
    """Where the browser has to go, and the state that it will bring back."""

    auth_url: str
    state: str


class CopyFrom(BaseModel):
    """Whose tokens are copied."""

    source_email: Annotated[EmailStr, AfterValidator(normal_email), Field(max_length=255)]


class CopiedOut(BaseModel):
    """What was copied."""

    success: bool = True
    message: str
    provider: str
    username: str | None


class DisconnectedOut(BaseModel):
    """The account is not connected any more."""

    success: bool = True
    message: str
