"""The access table of a service: each operation, RPC and consumer with who may use it.

The table is data so that a test can generate every refusal from it, and so that the application refuses to start with
an operation nobody decided about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servicekit.auth.permissions import permission_granted
from servicekit.auth.principal import Principal, PrincipalType
from servicekit.errors import FORBIDDEN

USERS: frozenset[PrincipalType] = frozenset({PrincipalType.USER, PrincipalType.API_KEY})
"""People: signed in, or through an API key of theirs."""
SIGNED_IN: frozenset[PrincipalType] = frozenset({PrincipalType.USER})
"""People signed in; an API key is refused (password, API keys, sessions)."""
AGENTS: frozenset[PrincipalType] = frozenset({PrincipalType.AGENT})
SANDBOXES: frozenset[PrincipalType] = frozenset({PrincipalType.SANDBOX})
SERVICES: frozenset[PrincipalType] = frozenset({PrincipalType.SERVICE})
EVERYONE: frozenset[PrincipalType] = frozenset(PrincipalType)

ANY_SERVICE: frozenset[str] = frozenset({"*"})
"""An RPC that every service with a valid service token may call."""
WITHOUT_TOKEN: frozenset[str] = frozenset({"anonymous"})
"""An RPC that needs no service token: only the one that exchanges a secret for such a token."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call one HTTP operation.

    `permission` is what the use case requires in the organization of the addressed row; None where a credential alone
    is enough (`auth.me`). The kit checks the principal's type before the endpoint runs; the use case calls
    `principal.require(permission, organization_id)`. `platform=True`: platform super admins only. `public=True`: no
    credential needed.
    """

    permission: str | None = None
    principals: frozenset[PrincipalType] = USERS
    platform: bool = False
    public: bool = False

    def admit(self, principal: Principal) -> None:
        """Raises `auth.forbidden` (403) when this principal may not call the operation at all.

        That is so for principals of another type, and for an API key whose scopes leave the permission out.
        """
        if self.public:
            return
        if principal.type not in self.principals or (self.platform and not principal.is_super_admin):
            raise FORBIDDEN()
        scopes, permission = principal.scopes, self.permission
        if scopes is not None and permission is not None and not permission_granted(permission, scopes):
            raise FORBIDDEN()


PUBLIC = Access(public=True, principals=EVERYONE)
"""An operation that needs no credential."""


@dataclass(frozen=True, slots=True)
class AccessTable:
    """All of a service's access decisions.

    `operations`: `<router tag>.<endpoint function name>` → `Access`. `rpcs`: method name (`ClaimTasks`, or
    `omoios.workflow.v1.WorkflowService/ClaimTasks` where two services share a name) → names of the calling services.
    `consumers`: consumer name → reason or permission under which it acts, for the reader.
    """

    operations: Mapping[str, Access] = field(default_factory=dict)
    rpcs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    consumers: Mapping[str, str] = field(default_factory=dict)

    def callers_of(self, service: str, method: str) -> frozenset[str] | None:
        """The services that may call `<service>/<method>`, or None where the table has no entry."""
        callers = self.rpcs.get(f"{service}/{method}")
        return self.rpcs.get(method) if callers is None else callers

    def check_operations(self, served: set[str]) -> None:
        """Compare with what the application serves. Raises `AccessTableMismatch` naming every difference."""
        _compare("operation", served, set(self.operations))

    def check_rpcs(self, served: set[str]) -> None:
        """Compare with the served RPCs (`<service>/<method>`). Raises `AccessTableMismatch` naming every difference."""
        listed: set[str] = set()
        for name in self.rpcs:
            matches = {rpc for rpc in served if rpc == name or ("/" not in name and rpc.endswith(f"/{name}"))}
            listed |= matches or {name}
        _compare("RPC", served, listed)


class AccessTableMismatch(Exception):
    """The access table and what the service serves differ; the process must not start."""


def _compare(what: str, served: set[str], listed: set[str]) -> None:
    problems = [f"{what} {name} has no entry in the access table" for name in sorted(served - listed)]
    problems += [f"the access table lists {what} {name}, which nothing serves" for name in sorted(listed - served)]
    if problems:
        raise AccessTableMismatch("; ".join(problems))
