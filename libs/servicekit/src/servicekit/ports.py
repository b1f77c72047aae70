"""The seams between the parts of the kit: what the host and the HTTP edge need of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from servicekit.auth.principal import Principal


@runtime_checkable
class Part(Protocol):
    """Something the host starts before the listeners open and closes after they are drained."""

    async def start(self) -> None:
        """Connects; called once, inside the running event loop."""

    async def close(self) -> None:
        """Lets go of everything; must not raise when ``start`` failed half-way."""


@runtime_checkable
class DatabasePart(Protocol):
    """``servicekit.db.Database``; it connects at its first statement."""

    async def ping(self) -> None:
        """One round trip; raises when the database cannot be used."""

    async def close(self) -> None:
        """Closes the pool."""

    async def connect(self, purpose: str, **server_settings: str) -> Any:
        """A raw asyncpg connection of its own, outside the pool; the caller closes it."""


@runtime_checkable
class AuthenticatorPart(Part, Protocol):
    """``servicekit.auth.Authenticator``."""

    async def authenticate(self, scope: Mapping[str, Any]) -> Principal | None:
        """The principal of an ASGI scope with its memberships loaded.

        None when no credential was presented; raises a 401 AppError for a bad one.
        """

    async def refresh(self, principal: Principal) -> Principal | None:
        """Asks identity once for the memberships; the principal to try again with, None when nothing changed."""

    def on_revoked(self, callback: Callable[[str, str], None]) -> None:
        """``callback(principal_type, principal_id)`` after a revocation reached this process."""


@runtime_checkable
class AccessEntry(Protocol):
    """One line of an access table (``servicekit.auth.Access``)."""

    @property
    def public(self) -> bool:
        """Whether the operation is served without any principal."""

    def admit(self, principal: Principal) -> None:
        """Raises 403 when principals of this type may not call the operation at all."""


@runtime_checkable
class AccessTablePart(Protocol):
    """``servicekit.auth.AccessTable``."""

    @property
    def operations(self) -> Mapping[str, Any]:
        """Operation id → entry."""

    @property
    def rpcs(self) -> Mapping[str, Any]:
        """RPC name → services that may call it."""

    def check_operations(self, served: set[str]) -> None:
        """Raises when the served operation ids and those of the table differ."""


@runtime_checkable
class ListeningPart(Part, Protocol):
    """A part with a port of its own (``servicekit.rpc.RpcServer``)."""

    @property
    def port(self) -> int:
        """The bound port; 0 before ``start``."""


@runtime_checkable
class WorkerPart(Part, Protocol):
    """``servicekit.events.EventWorker``: relay and consumers of a service."""

    def ready(self) -> bool:
        """Whether the consumers are bound."""
