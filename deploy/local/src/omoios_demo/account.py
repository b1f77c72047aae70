"""Who the demo is: a user and an organization of this stack, remembered in its state directory."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from omoios_demo.api import Api, Refused
from omoios_local.embedded.process import write_private
from omoios_local.mailbox import Mailbox

FILE = "demo.json"
KEY_FILE = "demo-runner-key"


@dataclass
class Account:
    """A user's login, the organization that the demo works in, and the API key of its runners."""

    email: str
    password: str
    organization_id: str = ""
    organization: str = ""
    runner_key: str = ""


def enter(api: Api, secrets_folder: Path, mailbox: Mailbox) -> tuple[Account, bool]:
    """Sign in as the remembered user, or register a new one; returns the account and whether it is new.

    The token of `api` is set and renewed from then on. Raises DemoError.
    """
    file = secrets_folder / FILE
    account = _remembered(file)
    new = account is None
    if account is not None:
        try:
            _sign_in(api, account)
            api.get(f"/organizations/{account.organization_id}")
        except Refused as refused:
            # A stack that was reset knows nobody of before; anything else is worth stopping for.
            if refused.status not in (401, 403, 404):
                raise
            account, new = None, True
            api.token = None
    if account is None:
        account = _registered(api, mailbox)
        write_private(file, json.dumps(asdict(account), indent=1) + "\n")
    known = account
    api.renew = lambda: _sign_in(api, known)
    return account, new


def runner_key_file(secrets_folder: Path, account: Account) -> Path:
    """The file from which runners read their API key."""
    file = secrets_folder / KEY_FILE
    write_private(file, account.runner_key + "\n")
    return file


def _remembered(file: Path) -> Account | None:
    try:
        return Account(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _sign_in(api: Api, account: Account) -> str:
    api.token = None
    api.token = str(api.post("/auth/login", {"email": account.email, "password": account.password})["access_token"])
    return api.token


def _registered(api: Api, mailbox: Mailbox) -> Account:
    mark = secrets.token_hex(4)
    # The domain is reserved for examples; the stack hands mail to its own sink only.
    account = Account(f"demo-{mark}@example.com", f"{secrets.token_urlsafe(18)}-aA1!")
    api.post("/auth/register", {"email": account.email, "password": account.password, "full_name": "Demo"})
    api.post("/auth/verify-email", {"token": mailbox.secret(account.email, "/verify-email")})
    _sign_in(api, account)
    made = api.post("/organizations", {"name": f"Demo {mark}", "slug": f"demo-{mark}"})
    account.organization_id, account.organization = str(made["id"]), str(made["name"])
    key = api.post(
        "/auth/api-keys", {"name": "runners of the demo", "organization_id": account.organization_id, "scopes": []}
    )
    account.runner_key = str(key["key"])
    return account
