"""Settings of this service."""

from __future__ import annotations

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings and what only agents needs."""

    http_port: int = Field(default=18103, ge=0, le=65535)
    rpc_port: int = Field(default=18203, ge=0, le=65535)

    heartbeat_interval_s: int = Field(default=10, ge=1, le=60)
    """How often an agent is told to beat; below the 15 s after which a running agent has missed one."""
    task_lease_s: int = Field(default=60, ge=10, le=600)
    """Lease of a claimed task; a heartbeat of its sandbox renews it."""
    sandbox_heartbeat_interval_s: float = Field(default=5.0, ge=0.2, le=60)
    sandbox_token_ttl_s: int = Field(default=3600, ge=60, le=3600)
    agent_token_ttl_s: int = Field(default=86_400, ge=60, le=86_400)
    claim_poll_s: float = Field(default=2.0, gt=0, le=30)
    """A waiting claim asks this often even when no hint arrives."""
    ingest_linger_ms: float = Field(default=2.0, ge=0, le=5)
    """How long the first event of a batch waits for others."""
    ingest_pending_max: int = Field(default=20_000, ge=500)
    """Events waiting to be written; beyond that requests are answered 503."""
    event_retention_days: int = Field(default=30, ge=1, le=3650)
    revoke_after_completion_s: int = Field(default=60, ge=0, le=3600)
    """A completed sandbox keeps its token this long, so that a repeated task-complete is answered the same."""
