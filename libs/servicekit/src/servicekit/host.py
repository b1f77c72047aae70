"""The host: turns one :class:`Service` into a running process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from starlette.routing import BaseRoute

from servicekit.jobs import Job as Job
from servicekit.ports import AccessTablePart, AuthenticatorPart, DatabasePart, Part
from servicekit.settings import ServiceSettings

if TYPE_CHECKING:
    from servicekit.http.hot import HotRoute

Role = Literal["server", "worker"]
Lifespan = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(slots=True)
class Service:
    """Everything one service is made of; built by ``main.build(settings)``.

    The host starts ``db, channels, authenticator, bus, resources`` (those given, in this order), then the
    ``lifespans``, and closes them in reverse after the listeners are drained.
    """

    name: str
    settings: ServiceSettings
    access: AccessTablePart
    db: DatabasePart | None = None
    channels: Part | None = None
    authenticator: AuthenticatorPart | None = None
    """Made from settings, ``db`` and ``channels`` by the host when it is not given."""
    bus: Part | None = None
    """``servicekit.events.Bus(settings)``: the NATS connection of the process."""
    resources: Part | None = None
    """``servicekit.events.Resources(db, channels)``: resource → organization."""
    routers: Sequence[APIRouter] = ()
    hot_routes: Sequence[HotRoute] = ()
    mounts: Sequence[BaseRoute] = ()
    """Raw Starlette routes (an MCP server, a WebSocket); they guard themselves."""
    servicers: Sequence[Any] = ()
    """``servicekit.rpc.RpcServicer``."""
    consumers: Sequence[Any] = ()
    """``servicekit.events.Consumers``."""
    jobs: Sequence[Job] = ()
    replicas: Sequence[Any] = ()
    """``servicekit.events.ReplicaSource``."""
    lifespans: Sequence[Lifespan] = ()
    """Factories of async context managers entered at start, in both roles."""
    errors: ModuleType | None = None
    """Module of ErrorSpec constants, for documentation."""
    revoked: list[Callable[[str, str], None]] = field(default_factory=list)

    def on_revoked(self, callback: Callable[[str, str], None]) -> None:
        """``callback(principal_type, principal_id)`` when that principal's session ended."""
        self.revoked.append(callback)
