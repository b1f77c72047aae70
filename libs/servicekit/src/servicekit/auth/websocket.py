"""The end of a long-lived connection: when its credential expires or is revoked."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal
from weakref import WeakKeyDictionary

from servicekit.auth.authenticator import Authenticator
from servicekit.auth.principal import Principal
from servicekit.auth.revocations import SESSION
from servicekit.clock import wall_s

EndReason = Literal["expired", "revoked"]


class _Registry:
    """The open watches of one authenticator by what can end them, so that a revocation costs one lookup."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.by_key: dict[tuple[str, str], set[CredentialWatch]] = {}
        authenticator.on_revoked(self._revoked)

    def _revoked(self, principal_type: str, principal_id: str) -> None:
        for watch in list(self.by_key.get((principal_type, principal_id), ())):
            watch._check()


_registries: WeakKeyDictionary[Authenticator, _Registry] = WeakKeyDictionary()


class CredentialWatch:
    """Tells when the credential behind an open connection ends.

    `with CredentialWatch(authenticator, principal) as watch:` and wait for `watch.ended` beside the connection's own
    work; it resolves to `"expired"` or `"revoked"`. Close a WebSocket with 4401 when revoked.
    """

    def __init__(self, authenticator: Authenticator, principal: Principal) -> None:
        self.principal = principal
        self.ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._authenticator = authenticator
        registry = _registries.get(authenticator)
        if registry is None:
            registry = _registries[authenticator] = _Registry(authenticator)
        self._registry = registry
        self._keys = _keys(principal)
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> CredentialWatch:
        for key in self._keys:
            self._registry.by_key.setdefault(key, set()).add(self)
        expires_at = self.principal.expires_at
        if expires_at is not None:
            delay = max(0.0, expires_at - wall_s())
            self._timer = asyncio.get_running_loop().call_later(delay, self._end, "expired")
        self._check()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for key in self._keys:
            watches = self._registry.by_key.get(key)
            if watches is not None:
                watches.discard(self)
                if not watches:
                    del self._registry.by_key[key]
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.cancel()

    def _check(self) -> None:
        if not self._authenticator.is_current(self.principal):
            expires_at = self.principal.expires_at
            self._end("expired" if expires_at is not None and expires_at <= wall_s() else "revoked")

    def _end(self, reason: EndReason) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


def _keys(principal: Principal) -> list[tuple[str, str]]:
    keys = [(principal.type.value, principal.id)]
    if principal.session_id is not None:
        keys.append((SESSION, principal.session_id))
    if principal.owner_id is not None:
        keys.append(("user", principal.owner_id))
    agent_id = principal.claims.get("agent")
    if principal.type.value == "sandbox" and isinstance(agent_id, str):
        keys.append(("agent", agent_id))
    return keys
