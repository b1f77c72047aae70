"""Settings of this service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from servicekit.settings import ServiceSettings


class Settings(ServiceSettings):
    """The base settings and what only billing needs."""

    http_port: int = Field(default=18105, ge=0, le=65535)
    rpc_port: int = Field(default=18205, ge=0, le=65535)

    plan_limits: Literal["loose", "contract"] | None = None
    """Limits of the free plan: the tier table's (`contract`), or a thousand times as much for trying things out.
    None means: contract in production, loose elsewhere."""

    reservation_ttl_s: int = Field(default=120, ge=1, le=3600)
    """Seconds after which a reservation ends whose execution was never heard of; the caller may ask for others."""

    reconcile_after_s: float = Field(default=3600.0, gt=0)
    """A confirmed reservation without news for so many seconds is asked after, and again each time as long."""

    @property
    def limit_factor(self) -> int:
        """What the free tier's limits are multiplied with."""
        chosen = self.plan_limits or ("contract" if self.is_production else "loose")
        return 1 if chosen == "contract" else 1000
