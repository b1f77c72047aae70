"""Pure rules of users' keys: which providers there are, and which addresses may be called for a user."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

MAX_KEYS = 50
HINT_CHARACTERS = 4

# NAT64: an IPv4 address, private ones too, inside a global IPv6 one (RFC 6052, RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class Provider(StrEnum):
    """Whose key it is."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    Z_AI = "z_ai"
    GOOGLE = "google"
    GITHUB = "github"


@dataclass(frozen=True, slots=True)
class Question:
    """A request that costs nothing and only works with a good key. `header` carries `prefix` and the key."""

    base_url: str
    path: str
    header: str
    prefix: str = ""
    extra: tuple[tuple[str, str], ...] = ()


QUESTIONS = {
    Provider.ANTHROPIC: Question(
        "https://api.anthropic.com", "/v1/models", "x-api-key", extra=(("anthropic-version", "2023-06-01"),)
    ),
    Provider.OPENAI: Question("https://api.openai.com", "/v1/models", "Authorization", "Bearer "),
    Provider.Z_AI: Question("https://api.z.ai/api/paas/v4", "/models", "Authorization", "Bearer "),
    Provider.GOOGLE: Question("https://generativelanguage.googleapis.com", "/v1beta/models", "x-goog-api-key"),
    Provider.GITHUB: Question("https://api.github.com", "/user", "Authorization", "Bearer "),
}


def hint_of(key: str) -> str:
    """The last characters of a key, by which its owner tells it from others."""
    return key[-HINT_CHARACTERS:]


def address_problem(url: str) -> str | None:
    """What is wrong with a base address that a user gives; None when it may be tried."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not an address"
    if parts.scheme not in ("https", "http"):
        return "must begin with https:// or http://"
    if not host or not host.isascii() or not url.isprintable() or " " in url:
        return "names no usable host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a password"
    if parts.query or parts.fragment:
        return "must end with its path"
    return None


def is_public(address: str) -> bool:
    """Whether an IP address (text) belongs to the internet, and not to this machine, its network or its cloud."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo is not None else None)
        if inner is not None:
            return is_public(str(inner))
        if any(ip in network for network in _NAT64):
            return False
    return ip.is_global and not ip.is_multicast
