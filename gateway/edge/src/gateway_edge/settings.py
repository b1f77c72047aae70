"""Settings of the edge process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from gateway_edge.layout import PENDING
from gateway_edge.routes import SERVICES
from gateway_edge.traefik_config import DEFAULT_PORTS
from servicekit.settings import ServiceSettings


def _local_services() -> dict[str, list[str]]:
    return {service: [f"http://127.0.0.1:{DEFAULT_PORTS[service]}"] for service in SERVICES}


class Settings(ServiceSettings):
    """What the edge can be told beside the settings that every process has."""

    http_port: int = Field(default=DEFAULT_PORTS["edge"], ge=0, le=65535)
    service_urls: dict[str, list[str]] = Field(default_factory=_local_services)
    """Service → base URLs of its instances, asked by ``/health``."""
    pending_file: Path = PENDING
    """The operations that are not built yet."""
    health_timeout_s: float = Field(default=1.0, gt=0, le=30)
    health_cache_s: float = Field(default=1.0, ge=0, le=60)
    """How long an answer of ``/health`` is given again, so that its callers cannot multiply into the services."""

    @field_validator("service_urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """A service with one instance may be given as its URL alone."""
        if not isinstance(value, dict):
            return value
        return {name: [urls] if isinstance(urls, str) else urls for name, urls in value.items()}
