"""Where a request came from, behind a gateway that is believed and nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.types import Scope


class ClientAddress:
    """Resolves the client's address: the right-most of X-Forwarded-For that is no trusted proxy.

    A header that an untrusted peer sent is ignored, so nobody picks the address under which they are counted.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(item, strict=False) for item in trusted]
        self.is_trusted = lru_cache(maxsize=1024)(self._is_trusted)

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def resolve(self, scope: Scope, forwarded_for: bytes | None) -> str:
        """The client's address as text, ``unknown`` for a peer without one (a Unix socket)."""
        client = scope.get("client")
        peer: str = client[0] if client else "unknown"
        if forwarded_for is None or not self.is_trusted(peer):
            return peer
        chosen = peer
        for item in reversed(forwarded_for.decode("latin-1").split(",")[-16:]):
            host = item.strip()
            try:
                chosen = str(ip_address(host))
            except ValueError:
                break
            if not self.is_trusted(chosen):
                break
        return chosen
