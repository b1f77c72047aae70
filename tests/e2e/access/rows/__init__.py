"""The makers of rows; importing this registers all of them."""

from __future__ import annotations

from tests.e2e.access.rows import agents, identity, workflow

__all__ = ["agents", "identity", "workflow"]
