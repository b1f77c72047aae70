"""Pure decisions about refresh tokens.

A refresh token is `omr_<session>.<generation>.<mac>`, the mac being HMAC-SHA256 of session and generation under a key
derived for that session. Nothing of it is stored: the successor of generation n is computed whenever it is needed, so a
client that repeats a refresh within the grace gets the same successor.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from enum import Enum

# Ten seconds: two tabs of one browser refresh at the same moment; a thief's replay comes later.
GRACE_S = 10.0
REFRESH_PREFIX = "omr_"
_MAX_LENGTH = 200


class Refresh(Enum):
    """What to do with a presented refresh token."""

    ROTATE = "rotate"
    """It is the current generation: advance by one and answer with the successor."""
    REPEAT = "repeat"
    """The one before, within the grace: answer with the current generation again."""
    REPLAYED = "replayed"
    """An old one: somebody holds a copy. The whole family ends."""
    DEAD = "dead"
    """The session has ended or run out."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token taken apart."""

    session_id: str
    generation: int
    mac: str


def decide(*, presented: int, current: int, rotated_ago_s: float, ended: bool, expired: bool) -> Refresh:
    """The decision for generation `presented` of a family that stands at `current`."""
    if ended or expired:
        return Refresh.DEAD
    if presented == current:
        return Refresh.ROTATE
    if presented == current - 1 and 0 <= rotated_ago_s <= GRACE_S:
        return Refresh.REPEAT
    return Refresh.REPLAYED


# Looked for in this order: every browser also calls itself by the names of older ones.
_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    *(("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS X", "macOS")),
    *(("CrOS", "ChromeOS"), ("Linux", "Linux")),
)


def device_of(user_agent: str | None) -> str:
    """A name for the device of a session that its owner will recognise: `Firefox on Linux`."""
    if not user_agent:
        return "unknown device"
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser is None:
        # A program: `curl/8.5.0` becomes `curl`.
        browser = user_agent.split("/", 1)[0].split("(", 1)[0].strip()[:40] or "unknown device"
    return f"{browser} on {system}" if system is not None else browser


def mac_of(key: bytes, session_id: str, generation: int) -> str:
    """The token's proof: base64url without padding, 43 characters."""
    digest = hmac.new(key, f"{session_id}.{generation}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def encode(key: bytes, session_id: str, generation: int) -> str:
    """The refresh token of one generation of a session."""
    return f"{REFRESH_PREFIX}{session_id}.{generation}.{mac_of(key, session_id, generation)}"


def parse(text: str) -> RefreshToken | None:
    """The parts of a refresh token; None when it does not have their form."""
    if len(text) > _MAX_LENGTH or not text.startswith(REFRESH_PREFIX):
        return None
    parts = text.removeprefix(REFRESH_PREFIX).split(".")
    if len(parts) != 3:
        return None
    session_id, generation, mac = parts
    if not (generation.isascii() and generation.isdigit() and len(generation) <= 12 and mac.isascii()):
        return None
    return RefreshToken(session_id, int(generation), mac)


def is_genuine(token: RefreshToken, key: bytes) -> bool:
    """Whether the mac fits; takes the same time for every wrong one."""
    return hmac.compare_digest(token.mac, mac_of(key, token.session_id, token.generation))
