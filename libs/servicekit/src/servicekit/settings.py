"""Settings of a process, from the environment (prefix ``OMOIOS_``) and from files."""

from __future__ import annotations

import base64
import binascii
import os
import socket
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "OMOIOS_"
STREAM_DAYS = 7
"""How long JetStream keeps an event at most."""
Environment = Literal["local", "test", "production"]


def instance_name() -> str:
    """``<hostname>:<pid>``: tells the instances of a service apart."""
    return f"{socket.gethostname()}:{os.getpid()}"


class FileSettingsSource(EnvSettingsSource):
    """Reads ``OMOIOS_<NAME>_FILE``: the value is the content of that file without its last newline."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        if not path:
            return None, field_name, False
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PREFIX}{field_name.upper()}_FILE cannot be read: {error}") from error
        return text.rstrip("\r\n"), field_name, self.field_is_complex(field)


class ServiceSettings(BaseSettings):
    """What every process can be told. A service subclasses it and sets its own ports.

    Values come from arguments, then the environment, then ``OMOIOS_<NAME>_FILE``, then the file named by
    ``OMOIOS_DOTENV``; a prefixed name that nobody knows in that file is refused.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", env_ignore_empty=True, frozen=True, validate_default=True
    )

    env: Environment = "local"
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=0, ge=0, le=65535)
    rpc_host: str = "127.0.0.1"
    rpc_port: int = Field(default=0, ge=0, le=65535)
    worker_http_port: int = Field(default=0, ge=0, le=65535)
    embed_worker: bool = False
    instance: str = Field(default_factory=instance_name)

    database_url: str | None = Field(default=None, repr=False)
    database_pool_size: int = Field(default=10, ge=1, le=200)

    nats_url: str = "nats://127.0.0.1:14222"
    nats_user: str | None = None
    nats_password: SecretStr | None = None

    outbox_days: int = Field(default=STREAM_DAYS + 1, gt=STREAM_DAYS)
    """Days for which an outbox keeps what it published: longer than the streams, which are filled again from it."""
    inbox_days: int = 2 * STREAM_DAYS + 2
    """Days since an event was told last for which a consumer knows it. The outboxes are those of all services."""

    redis_url: str | None = Field(default=None, repr=False)
    redis_timeout_s: float = Field(default=0.5, gt=0, le=30)
    """Seconds for connecting and for each answer; a cache that is slower than that is as good as absent."""

    rpc_targets: dict[str, str] = Field(default_factory=dict)

    jwks_url: str = "http://127.0.0.1:18101/.well-known/jwks.json"
    """Where identity publishes its keys: one address, or one of each instance, separated by spaces."""
    jwt_issuer: str = "omoios-identity"
    jwt_audience: str = "omoios-api"
    service_secret: SecretStr | None = None

    public_url: str = "http://127.0.0.1:18000"
    cors_origins: list[str] = Field(default_factory=lambda: ["http://localhost:3000"])
    trusted_proxies: list[str] = Field(default_factory=lambda: ["127.0.0.1", "::1"])
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed: the gateway's."""

    envelope_key: SecretStr | None = None
    """Base64 of 32 bytes. Several with white space between: the first seals, the others still open."""
    otlp_endpoint: str | None = None
    rate_limits: Literal["loose", "contract"] = "loose"
    data_dir: Path | None = None

    max_requests: int = Field(default=256, ge=1)
    """HTTP requests that may run at once in this process; what comes beyond them is answered 503 at once.

    What waits does not count (a body on its way, a long poll), nor do WebSockets, begun streams and probes. Some
    hundred requests under way make every one of them wait for a second on a slow machine; ten connections to the
    database serve no more in that time.
    """

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    shutdown_grace_s: float = Field(default=10.0, ge=0, le=300)
    """Seconds that running requests, calls and jobs have to finish after SIGTERM."""
    shutdown_delay_s: float = Field(default=0.0, ge=0, le=60)
    """Seconds between readiness going off and the listeners closing, at least: what a load balancer needs to notice.

    They stay open, half the grace period longer at most, until no request comes any more. 0 closes them at once.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSettingsSource(settings_cls), dotenv_settings

    def __init__(self, **values: Any) -> None:
        values.setdefault("_env_file", os.environ.get(f"{PREFIX}DOTENV"))
        super().__init__(**values)

    @model_validator(mode="before")
    @classmethod
    def _production_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("env") == "production":
            values.setdefault("rate_limits", "contract")
            values.setdefault("trusted_proxies", [])
        return values

    @model_validator(mode="after")
    def _inbox_outlives_what_can_come_again(self) -> Self:
        if self.inbox_days < self.outbox_days + STREAM_DAYS:
            raise ValueError(
                f"inbox_days ({self.inbox_days}) must be at least outbox_days ({self.outbox_days}) + {STREAM_DAYS}: an "
                f"event may be published again on the outbox's last day and wait {STREAM_DAYS} days in its stream"
            )
        return self

    @field_validator("rate_limits", mode="before")
    @classmethod
    def _known_limits(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _no_wildcard(cls, value: list[str]) -> list[str]:
        if "*" in value:
            raise ValueError("credentials are allowed, so every origin must be named; '*' is refused")
        return [origin.rstrip("/") for origin in value]

    @field_validator("jwks_url")
    @classmethod
    def _some_address(cls, value: str) -> str:
        if not value.split():
            raise ValueError("must name an address at least")
        return value

    @field_validator("database_url")
    @classmethod
    def _plain_scheme(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("postgresql://"):
            raise ValueError("must start with postgresql:// (no driver in the scheme)")
        return value

    @field_validator("envelope_key")
    @classmethod
    def _keys_of_32_bytes(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        keys = value.get_secret_value().split()
        try:
            lengths = [len(base64.b64decode(key, validate=True)) for key in keys]
        except binascii.Error as error:
            raise ValueError("must be base64") from error
        if not keys or any(length != 32 for length in lengths):
            raise ValueError(f"each key must be 32 bytes, not {lengths}")
        return value

    @property
    def is_production(self) -> bool:
        """Whether the strict profile applies: HSTS, no debug routes, contract rate limits."""
        return self.env == "production"
