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
    """Limits of new free accounts: the tier table's (`contract`), or a thousand times as much for trying things out.
    None means: contract in production, loose elsewhere."""

    @property
    def limit_factor(self) -> int:
        """What the free tier's limits are multiplied with."""
        chosen = self.plan_limits or ("contract" if self.is_production else "loose")
        return 1 if chosen == "contract" else 1000
