"""Rotation of the key that encrypts secrets at rest, while the stack runs."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from omoios_local.client import StackClient
from omoios_local.embedded.process import write_private
from omoios_local.provision import run_module

OWNER = "identity"


def rotate(client: StackClient, *, forget: bool, say: Callable[[str], None]) -> None:
    """Put a new envelope key in use and seal every secret anew under it.

    Every instance can open what the new key seals before any seals with it, so that two instances never disagree. The
    key before stays in the file: refresh tokens of open sessions belong to it. `forget` drops it, and those sessions
    sign in again. Interrupted, the command begins with what the last one left. Raises RuntimeError.
    """
    if not any(unit["part"] == OWNER and unit.get("pid") for unit in client.status()):
        raise RuntimeError(f"{OWNER} does not run; start the stack with `make up` first")
    file = client.stack().credentials.envelope_file
    present, *others = file.read_text().split()
    if others:
        # Nothing may be left under a key that is dropped now.
        client.restart(OWNER)
        _reseal(client)
    new = base64.b64encode(secrets.token_bytes(32)).decode()
    say("every instance learns to open what the new key seals")
    _put(client, file, [present, new])
    say("every instance seals with the new key")
    _put(client, file, [new, present])
    say(_reseal(client))
    if forget:
        _put(client, file, [new])
        say("the key before is forgotten; sessions that it knew sign in again")


def _put(client: StackClient, file: Path, keys: Sequence[str]) -> None:
    owner = file.stat()
    write_private(file, "\n".join(keys) + "\n", owner.st_uid, owner.st_gid)
    client.restart(OWNER)


def _reseal(client: StackClient) -> str:
    environment = client.stack().environments.service(OWNER, 1)
    return run_module("identity_service.admin", ["reseal"], environment, client.state.directory).strip()
