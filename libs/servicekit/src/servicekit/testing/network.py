"""Tests reach this machine only."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

_NAMES = frozenset({"localhost", "testserver", "ip6-localhost", ""})
_state = {"installed": False}


class OutsideNetwork(RuntimeError):
    """A test tried to reach another machine."""


def block_outside_network() -> None:
    """Refuse connections and name look-ups that leave the loopback interface, for the rest of this process."""
    if not _state["installed"]:
        _state["installed"] = True
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple):
            _require_local(address[0])
    elif event == "socket.getaddrinfo":
        _require_local(arguments[0])


def _require_local(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in _NAMES or name.endswith(".localhost"):
        return
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        raise OutsideNetwork(f"tests do not look up {name}") from None
    if not (address.is_loopback or address.is_unspecified):
        raise OutsideNetwork(f"tests do not connect to {name}")
