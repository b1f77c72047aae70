"""Requests to addresses that users name: each is looked up, checked and then reached at exactly what was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import Protocol

import httpx2

from identity_service.credentials.rules import Question, is_public
from servicekit.errors import invalid
from servicekit.http.client import GuardedClient


class Providers(Protocol):
    """Asks a provider about a key."""

    async def accepts(self, question: Question, base_url: str, key: str) -> bool | None:
        """Whether the provider takes the key; None when its answer does not tell.

        Raises 422 (`base_url`) for an address that must not be called, UNAVAILABLE (503), DEADLINE (504).
        """

    async def close(self) -> None:
        """Ends what is open."""


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Resolves the host once, refuses private addresses, and connects to the address that was checked.

    Checking first and connecting by name afterwards would let a name server answer twice. Certificates are still
    checked against the name. `allowed`: hosts that may have private addresses.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(host.lower() for host in allowed)
        # The pool knows connections by address: one kept open for a name must not serve another name there.
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request; raises 422 for `base_url`."""
        host = request.url.host
        if request.url.scheme != "https" and host.lower() not in self._allowed:
            raise invalid("base_url", "must begin with https://")
        address = await self._resolve(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        extensions = dict(request.extensions)
        if request.url.scheme == "https" and not _is_ip(host):
            extensions["sni_hostname"] = host
        pinned = httpx2.Request(
            request.method,
            request.url.copy_with(host=address),
            # The Host header was set from the name when the request was made.
            headers=request.headers,
            stream=request.stream,
            extensions=extensions,
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._inner.aclose()

    async def _resolve(self, host: str, port: int) -> str:
        addresses = [host]
        if not _is_ip(host):
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise invalid("base_url", "this host cannot be found") from error
            addresses = [str(entry[4][0]) for entry in found]
        # All of them: a mixed answer is how a private address is slipped in.
        if host.lower() not in self._allowed and not all(map(is_public, addresses)):
            raise invalid("base_url", "this address cannot be called from here")
        return addresses[0]


class HttpProviders:
    """`Providers` over HTTP."""

    def __init__(self, reachable_private_hosts: Collection[str]) -> None:
        self._allowed = reachable_private_hosts
        self._client: GuardedClient | None = None

    async def accepts(self, question: Question, base_url: str, key: str) -> bool | None:
        if self._client is None:
            # Made at first use: it reads the certificate store, which an idle process does not need.
            self._client = GuardedClient("model provider", transport=PinnedTransport(self._allowed))
        headers = {question.header: f"{question.prefix}{key}", "User-Agent": "omoios", **dict(question.extra)}
        async with self._client.stream("GET", f"{base_url}{question.path}", headers=headers) as response:
            status = response.status_code
        if status < 300:
            return True
        return False if status in (400, 401, 403) else None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
