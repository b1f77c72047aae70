"""Projections of other services' facts that can be built anew from their owner's snapshots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReplicaSource:
    """`rebuild` pages through the owner's snapshot RPC, writes what is newer, and returns the number of rows read."""

    name: str
    rebuild: Callable[[], Awaitable[int]]
