"""Request and response models of the agents room."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

Text50 = Annotated[str, Field(min_length=1, max_length=50)]
Tokens = Annotated[list[str], Field(max_length=100)]


class AgentRegister(BaseModel):
    """`organization_id` may be left out by members of exactly one organization."""

    agent_type: Text50
    phase_id: Annotated[str, Field(max_length=50)] | None = None
    capabilities: Tokens
    capacity: Annotated[int, Field(ge=1, le=1_000)] = 1
    status: Text50 = "idle"
    tags: Tokens | None = None
    organization_id: str | None = None


class AgentPatch(BaseModel):
    """Fields left out stay as they are."""

    capabilities: Tokens | None = None
    capacity: Annotated[int, Field(ge=1, le=1_000)] | None = None
    status: Text50 | None = None
    tags: Tokens | None = None
    health_status: Text50 | None = None


class Availability(BaseModel):
    """Whether the agent takes tasks."""

    available: bool


class AgentOut(BaseModel):
    """An agent as the web client reads it."""

    agent_id: str
    agent_name: str
    organization_id: str
    agent_type: str
    phase_id: str | None
    status: str
    capabilities: list[str]
    capacity: int
    health_status: str
    tags: list[str]
    is_available: bool
    last_heartbeat: datetime | None
    created_at: datetime | None
    version: int


class AgentRegistered(AgentOut):
    """`token`: the agent's own bearer token; `heartbeat_interval_s`: how often it is to beat."""

    token: str
    token_expires_at: datetime
    heartbeat_interval_s: int


class AgentMatch(BaseModel):
    """`match_score` from 0 to 1.65."""

    agent: AgentOut
    match_score: float
    matched_capabilities: list[str]


class HeartbeatMessage(BaseModel):
    """`checksum` is verified when it is sent; the token is what authenticates."""

    agent_id: str
    timestamp: datetime | None = None
    sequence_number: Annotated[int, Field(ge=1, lt=2**62)]
    status: Text50
    current_task_id: Annotated[str, Field(max_length=100)] | None = None
    health_metrics: dict[str, Any] = Field(default_factory=dict)
    checksum: Annotated[str, Field(max_length=64)] | None = None


class HeartbeatAck(BaseModel):
    """`token` comes with a renewed token when the agent's own has lived half of its life."""

    agent_id: str
    sequence_number: int
    timestamp: datetime
    received: bool = True
    message: str | None = None
    token: str | None = None
    token_expires_at: datetime | None = None


class AgentHealth(BaseModel):
    """Health derived from the last heartbeat, never stored."""

    agent_id: str
    agent_type: str
    phase_id: str | None
    status: str
    healthy: bool
    is_stale: bool
    last_heartbeat: datetime | None
    time_since_last_heartbeat: float | None
    seconds_since_heartbeat: float | None
    timeout_seconds: int
    capabilities: list[str]
    created_at: datetime | None
    health_status: str
    message: str | None = None


class HealthSummary(BaseModel):
    """Agents by derived health."""

    healthy: int
    unhealthy: int
    unknown: int


class RecentHeartbeats(BaseModel):
    """Agents that beat within the time."""

    last_5_minutes: int
    last_hour: int
    last_24_hours: int


class AgentStatistics(BaseModel):
    """Counts over the caller's organizations."""

    total_agents: int
    by_status: dict[str, int]
    by_type: dict[str, int]
    by_phase: dict[str, int]
    by_health: dict[str, int]
    stale_count: int
    health_summary: HealthSummary
    recent_heartbeats: RecentHeartbeats


class CleanupResult(BaseModel):
    """How many agents were marked."""

    success: bool = True
    marked_count: int
    timeout_seconds: int
    marked_as: str
    message: str
