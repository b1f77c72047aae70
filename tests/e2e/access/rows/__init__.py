"""The makers of rows; importing this registers all of them."""

from __future__ import annotations

from tests.e2e.access.rows import agents, identity, identity_states, states, workflow

__all__ = ["agents", "identity", "identity_states", "states", "workflow"]
