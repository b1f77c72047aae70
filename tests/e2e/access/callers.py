"""Everybody who calls: people of all roles, machines, keys, and credentials that are none."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from identity_service.envelope.rules import Envelope
from servicekit.auth import Access, PrincipalType
from servicekit.auth.permissions import AGENT_PERMISSIONS, SANDBOX_PERMISSIONS, permission_granted
from servicekit.ids import new_id
from tests.e2e.access.databases import Databases
from tests.e2e.access.recipe import Recipe, Scope
from tests.e2e.world import Person, Tenant, World, eventually

USER, API_KEY = PrincipalType.USER, PrincipalType.API_KEY
AGENT, SANDBOX, SERVICE = PrincipalType.AGENT, PrincipalType.SANDBOX, PrincipalType.SERVICE

NO_CREDENTIAL = ("nobody", "forged", "wrong_audience", "wrong_issuer", "expired", "refresh_token", "unknown_key")
"""Whoever shows one of these is not authenticated."""
# Exactly the callers of the matrix; the kind decides what the access table says of them.
KINDS: Mapping[str, PrincipalType] = {
    "stranger": USER,
    "outsider": USER,
    "viewer": USER,
    "owner": USER,
    "leaver": USER,
    "super_admin": USER,
    "narrow_key": API_KEY,
    "foreign_key": API_KEY,
    "key": API_KEY,
    "agent": AGENT,
    "foreign_agent": AGENT,
    "sandbox": SANDBOX,
    "other_sandbox": SANDBOX,
    "foreign_sandbox": SANDBOX,
    "service": SERVICE,
}
FOREIGN = frozenset({"stranger", "outsider", "foreign_key", "foreign_agent", "foreign_sandbox"})
NARROW_SCOPES = ("billing:read", "org:read")
"""Of the two narrow keys the one is taken whose scope is not what the operation needs."""
TOKEN_LIFE_S = 600


class Keys:
    """identity's own signing key, to make tokens that are wrong in one thing only."""

    def __init__(self, world: World, databases: Databases) -> None:
        environment = world.client.stack().environments.service("identity")
        envelope = Envelope.from_base64(Path(environment["OMOIOS_ENVELOPE_KEY_FILE"]).read_text("utf-8").strip())
        row = databases.rows("identity", "SELECT id, sealed_private_jwk FROM signing_keys WHERE state = 'active'")[0]
        self.kid: str = row["id"]
        self.own = ECKey.import_key(json.loads(envelope.open(row["sealed_private_jwk"], "signing-key")))
        self.other = ECKey.generate_key("P-256", {"kid": self.kid, "use": "sig", "alg": "ES256"})

    def token(self, kind: str, subject: str, *, key: ECKey | None = None, header: Any = None, **claims: Any) -> str:
        """A token as identity makes them, but for what is given."""
        now = int(time.time())
        content = {
            "iss": "omoios-identity",
            "aud": "omoios-api",
            "sub": subject,
            "pt": kind,
            "iat": now,
            "exp": now + TOKEN_LIFE_S,
            "jti": new_id(),
        } | claims
        merged = {"alg": "ES256", "typ": "at+jwt", "kid": self.kid} | dict(header or {})
        return jwt.encode(merged, content, key or self.own, algorithms=["ES256"])


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unverified."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


@dataclass
class Cast:
    """The people and machines, with their bearer tokens by the caller's name."""

    world: World
    databases: Databases
    keys: Keys
    tenant: Tenant
    other: Tenant
    people: dict[str, Person]
    roles: dict[str, str]
    tokens: dict[str, str | None] = field(default_factory=dict)
    narrow: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> Person:
        return self.tenant.owner

    def token(self, caller: str, rows: Mapping[str, str], access: Access) -> str | None:
        """What the caller shows; a machine that a row belongs to shows that row's own token."""
        if caller == "leaver":
            return rows["leaver_token"]
        if caller == "agent":
            return rows.get("sandbox_agent_token") or rows.get("agent_token") or self.tokens["agent"]
        if caller == "sandbox":
            return rows.get("sandbox_token") or self.tokens["sandbox"]
        if caller == "narrow_key":
            wanted = access.permission or ""
            return self.narrow[next(scope for scope in NARROW_SCOPES if scope != wanted)]
        return self.tokens[caller]


def cast(world: World, databases: Databases) -> Cast:
    """Two tenants and everybody around them."""
    tenant, other = world.tenant(), world.tenant()
    keys = Keys(world, databases)
    for one in (tenant, other):
        # An organization runs five tasks at once unless it says otherwise, which a few sandboxes would use up.
        eventually(
            lambda organization=one.organization_id: databases.rows(
                "workflow",
                "UPDATE replica_organizations SET max_concurrent_agents = NULL, version = version + 1000000 "
                "WHERE organization_id = $1 RETURNING organization_id",
                organization,
            ),
            "workflow knows the organization",
        )
    people = {name: world.register() for name in ("stranger", "viewer", "super_admin")}
    people |= {"owner": tenant.owner, "outsider": other.owner}
    roles = {role["name"]: role["id"] for role in tenant.owner.get(f"/organizations/{tenant.organization_id}/roles")}
    viewer = {"user_id": people["viewer"].user_id, "role_id": roles["viewer"]}
    tenant.owner.post(f"/organizations/{tenant.organization_id}/members", viewer)
    make_super_admin(world, people["super_admin"])
    found = Cast(world, databases, keys, tenant, other, people, roles)
    owner_claims = claims_of(tenant.owner.token)
    found.tokens = {
        **{name: person.token for name, person in people.items()},
        "nobody": None,
        "forged": keys.token("user", tenant.owner.user_id, key=keys.other, sid=owner_claims["sid"], sa=True),
        "wrong_audience": keys.token("user", tenant.owner.user_id, aud="another-api", sid=owner_claims["sid"]),
        "wrong_issuer": keys.token("user", tenant.owner.user_id, iss="somebody", sid=owner_claims["sid"]),
        "expired": keys.token(
            "user", tenant.owner.user_id, iat=int(time.time()) - 7200, exp=int(time.time()) - 3600, sid=new_id()
        ),
        "refresh_token": tenant.owner.refresh_token,
        "unknown_key": "omk_" + "0" * 43,
        "key": api_key(tenant.owner, None),
        "foreign_key": api_key(other.owner, None),
        "service": keys.token("service", "workflow"),
    }
    found.narrow = {scope: api_key(tenant.owner, [scope]) for scope in NARROW_SCOPES}
    return found


def api_key(person: Person, scopes: list[str] | None) -> str:
    """A new key of the person; without scopes it may do what he may."""
    body = {"name": "matrix"} | ({"scopes": scopes} if scopes else {})
    return str(person.post("/auth/api-keys", body)["key"])


def make_super_admin(world: World, person: Person) -> None:
    """As the operator does it."""
    subprocess.run(
        [sys.executable, "-P", "-m", "omoios_local", "admin", person.email],
        env={**os.environ, "OMOIOS_STATE_DIR": str(world.client.state.directory)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    world.sign_in(person)


VIEWS = ("org:read", "project:read", "document:read", "ticket:read", "task:read", "agent:read", "billing:read")
VIEWER_PERMISSIONS = frozenset({*VIEWS, "monitor:read"})

ANSWERED = "2xx"


def expected(caller: str, access: Access, recipe: Recipe) -> str | int:
    """What the caller must be answered: a status, or `2xx`."""
    if access.public:
        return recipe.answered or ANSWERED
    if caller in NO_CREDENTIAL:
        return 401
    kind = KINDS[caller]
    if kind not in access.principals:
        return 403
    if access.platform:
        return recipe.answered or ANSWERED if caller == "super_admin" else 403
    if recipe.scope is Scope.ONESELF or caller == recipe.by:
        return recipe.answered or ANSWERED
    if recipe.scope is Scope.PERSON:
        return recipe.foreign
    permission = access.permission or ""
    if caller == "narrow_key":
        return 403
    if recipe.scope is Scope.LISTS:
        return _on_lists(caller, permission, recipe.nothing)
    if caller in FOREIGN:
        return 404
    if caller == "viewer":
        return ANSWERED if permission in VIEWER_PERMISSIONS else 403
    if kind in (AGENT, SANDBOX):
        granted = permission_granted(permission, AGENT_PERMISSIONS if kind is AGENT else SANDBOX_PERMISSIONS)
        return (ANSWERED if caller in recipe.machines else 404) if granted else 403
    return ANSWERED


def _on_lists(caller: str, permission: str, nothing: int | None) -> str | int:
    if permission.endswith(":read"):
        return nothing if nothing is not None and caller in ("stranger", "foreign_sandbox") else ANSWERED
    # A change of everything that the caller may change is refused to whoever may change nothing.
    return 403 if caller in ("stranger", "viewer") else ANSWERED
