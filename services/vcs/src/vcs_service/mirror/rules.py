"""Pure rules of repositories: what may be mirrored, how branches are called, what a push asks for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit, urlunsplit

MAX_URL = 2000
SPEC_PREFIX = "omoios/"
TASK_PREFIX = "omoios-tasks/"
# Merges go to branches of ours; the user's own branch names stay the user's.
TICKET_PREFIX = "ticket/"
TARGET_PREFIXES = (SPEC_PREFIX, TICKET_PREFIX)
UPSTREAM = "refs/upstream/heads/"
ZERO_SHA = "0" * 40
# A push names its refs before the pack; more than this many characters of commands is no push of one branch.
MAX_COMMANDS = 64 * 1024

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@-]{0,199}")


class RefusedURL(ValueError):
    """The repository cannot be mirrored from there; the text says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repository is fetched from. `host` and `port` are empty for a path."""

    url: str
    shown: str
    host: str = ""
    port: int = 0
    is_path: bool = False


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One command of a push."""

    old: str
    new: str
    ref: str


class MalformedPush(ValueError):
    """The body is not the start of a push."""


def parse_source(text: str, *, roots: Sequence[str], allow_plain_http: bool) -> Source:
    """The source behind a URL or path.

    A path must lie below one of `roots` (already resolved by the caller). Of URLs only https passes, and http where
    it is allowed: `ext::`, `file://`, `ssh` and the scp form would run programs or use the server's keys. Raises
    RefusedURL.
    """
    value = text.strip()
    if not value or len(value) > MAX_URL or any(ord(character) < 32 for character in value):
        raise RefusedURL("is empty, too long, or holds control characters")
    if value.startswith("/"):
        path = PurePosixPath(value)
        if ".." in path.parts:
            raise RefusedURL("must not contain '..'")
        if not any(path == PurePosixPath(root) or path.is_relative_to(root) for root in roots):
            raise RefusedURL("lies below no folder that the operator has opened for repositories")
        return Source(url=str(path), shown=str(path), is_path=True)
    parts = urlsplit(value)
    schemes = ("https", "http") if allow_plain_http else ("https",)
    if parts.scheme not in schemes:
        raise RefusedURL(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise RefusedURL("has a port that is none") from error
    if not parts.hostname or parts.query or parts.fragment:
        raise RefusedURL("must name a host, and neither query nor fragment")
    netloc = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
    if ":" in parts.hostname:
        netloc = f"[{parts.hostname}]" + (f":{parts.port}" if parts.port is not None else "")
    # Credentials in a URL would end up in argv, in logs and in answers; they come from the credential store only.
    if parts.username or parts.password:
        raise RefusedURL("must not hold a user name or password")
    clean = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    return Source(url=clean, shown=clean, host=parts.hostname, port=port)


def address_is_public(address: str) -> bool:
    """Whether a resolved address may be fetched from: no loopback, private, link-local or otherwise special one."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


def branch_problem(name: str) -> str | None:
    """Why git would not take this as a branch name, None when it would (a strict subset of git-check-ref-format)."""
    if _BRANCH.fullmatch(name) is None:
        return "may hold letters, digits and . _ / + @ - only, 200 at most"
    if ".." in name or "//" in name or "@{" in name or name.endswith(("/", ".", ".lock")):
        return "must not contain '..', '//' or '@{', nor end in '/', '.' or '.lock'"
    if any(part.startswith(".") or part.endswith(".lock") for part in name.split("/")):
        return "must not have a part that starts with '.' or ends in '.lock'"
    return None


def target_problem(target: str) -> str | None:
    """Why a branch must not be merged into, None when it may be."""
    if not target.startswith(TARGET_PREFIXES):
        return f"must start with {' or '.join(TARGET_PREFIXES)}"
    return None


def is_sha(text: str) -> bool:
    """Whether `text` is a full object id (SHA-1 or SHA-256) in lower case."""
    return _SHA.fullmatch(text) is not None


def ticket_ref(ticket_id: str) -> str:
    """The ref of the branch into which the work of a ticket is merged."""
    return head_ref(TICKET_PREFIX + ticket_id)


def task_branch(task_id: str, attempt: int) -> str:
    """The branch of one attempt; the attempt in its name keeps late pushes of an older one apart."""
    return f"{TASK_PREFIX}{task_id}/{attempt}"


def head_ref(branch: str) -> str:
    """`refs/heads/<branch>`."""
    return f"refs/heads/{branch}"


def parse_commands(data: bytes) -> tuple[list[RefUpdate], int] | None:
    """The ref updates at the start of a receive-pack body and the length of that part.

    None when more bytes are needed. Raises MalformedPush. A shallow clone says first where its history ends.
    """
    updates: list[RefUpdate] = []
    position = 0
    while True:
        if position > MAX_COMMANDS:
            raise MalformedPush("too many commands")
        if len(data) < position + 4:
            return None
        try:
            length = int(data[position : position + 4], 16)
        except ValueError as error:
            raise MalformedPush("not a pkt-line") from error
        if length == 0:
            return updates, position + 4
        if length < 4:
            raise MalformedPush("not a pkt-line")
        if len(data) < position + length:
            return None
        line = data[position + 4 : position + length]
        if not line.startswith(b"shallow "):
            updates.append(_command(line))
        position += length


def _command(line: bytes) -> RefUpdate:
    try:
        text = line.partition(b"\0")[0].rstrip(b"\n").decode()
    except UnicodeDecodeError as error:
        raise MalformedPush("a ref is not UTF-8") from error
    parts = text.split(" ", 2)
    if len(parts) != 3 or not (is_sha(parts[0]) and is_sha(parts[1])) or not parts[2].startswith("refs/"):
        raise MalformedPush("not a ref update")
    return RefUpdate(old=parts[0], new=parts[1], ref=parts[2])


def push_problem(updates: Sequence[RefUpdate], allowed_refs: Sequence[str]) -> str | None:
    """Why a push is refused, None when it writes the allowed refs only and deletes nothing."""
    if not updates:
        return "the push names no ref"
    for update in updates:
        if update.ref not in allowed_refs:
            return f"only {' and '.join(allowed_refs)} may be pushed, not {update.ref}"
        if set(update.new) == {"0"}:
            return "the branch must not be deleted"
    return None
