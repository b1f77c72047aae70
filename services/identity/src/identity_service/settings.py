"""Settings of this service."""

from __future__ import annotations

from pydantic import Field, field_validator

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings and what only identity needs."""

    http_port: int = Field(default=18101, ge=0, le=65535)
    rpc_port: int = Field(default=18201, ge=0, le=65535)

    service_secrets: dict[str, str] = Field(default_factory=dict, repr=False)
    """Service name → SHA-256 (hex) of the secret with which it asks for its token."""
    access_token_ttl_s: int = Field(default=900, ge=60, le=3600)
    session_ttl_s: int = Field(default=7 * 24 * 3600, ge=3600)
    login_failures: int = Field(default=5, ge=1)
    login_window_s: int = Field(default=900, ge=1)
    hashing_threads: int = Field(default=2, ge=1, le=16)
    hashing_queue: int = Field(default=64, ge=1)
    """Sign-ins that may wait for a hashing thread; more are answered 503."""

    @field_validator("service_secrets")
    @classmethod
    def _digests(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if len(digest) != 64 or any(character not in "0123456789abcdef" for character in digest):
                raise ValueError(f"{name}: not a SHA-256 in lower-case hex")
        return value
