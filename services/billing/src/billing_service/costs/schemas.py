"""Requests and answers of `/costs`. Amounts are USD."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from billing_service.costs import rules
from billing_service.costs.tables import CostRecord

Scope = Literal["global", "ticket", "agent", "phase", "task", "execution", "project", "spec"]


class Forecast(BaseModel):
    """How many tasks are to come."""

    pending_task_count: Annotated[int, Field(gt=0, le=1_000_000)]
    avg_tokens_per_task: Annotated[int, Field(ge=0, le=100_000_000)] | None = None
    provider: Annotated[str, Field(max_length=50)] = "anthropic"
    model: Annotated[str, Field(max_length=100)] = "claude-sonnet-4.5"


class ForecastOut(BaseModel):
    """What they will probably cost."""

    task_count: int
    estimated_cost: float
    estimated_tokens: int
    avg_tokens_per_task: int
    buffer_multiplier: float


class CostRecordOut(BaseModel):
    """One usage and what it costs."""

    id: str
    task_id: str | None
    agent_id: str | None
    sandbox_id: str | None
    billing_account_id: str
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_cost: float
    completion_cost: float
    total_cost: float
    recorded_at: datetime
    kind: str
    sandbox_seconds: float

    @classmethod
    def of(cls, row: CostRecord, account_id: str) -> CostRecordOut:
        """From the row."""
        return cls(
            id=row.id,
            task_id=row.task_id,
            agent_id=row.agent_id,
            sandbox_id=row.sandbox_id,
            billing_account_id=account_id,
            provider=row.provider,
            model=row.model,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            total_tokens=row.prompt_tokens + row.completion_tokens,
            prompt_cost=rules.usd(row.prompt_micro_usd),
            completion_cost=rules.usd(row.completion_micro_usd),
            total_cost=rules.usd(row.total_micro_usd),
            recorded_at=row.recorded_at,
            kind=row.kind,
            sandbox_seconds=row.sandbox_milliseconds / 1000,
        )


class CostShare(BaseModel):
    """What one model or sandboxes took."""

    provider: str
    model: str
    cost: float
    tokens: int
    records: int


class CostSummaryOut(BaseModel):
    """What a scope cost, and on what."""

    scope_type: str
    scope_id: str | None
    total_cost: float
    total_tokens: int
    record_count: int
    breakdown: list[CostShare]
