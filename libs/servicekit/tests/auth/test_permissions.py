"""Matching of permissions, the order of roles, and what a principal may do where."""

from __future__ import annotations

import pytest

from servicekit.auth import (
    AGENT_PERMISSIONS,
    AGENTS,
    PUBLIC,
    SIGNED_IN,
    USERS,
    Access,
    AccessTable,
    AccessTableMismatch,
    Membership,
    Principal,
    PrincipalType,
    permission_granted,
    role_satisfies,
)
from servicekit.auth.principal import machine_memberships
from servicekit.errors import AccessRefused, AppError, ErrorSpec, Kind

MISSING = ErrorSpec("things.not_found", Kind.NOT_FOUND, "This thing does not exist.")


@pytest.mark.parametrize(
    ("permission", "grant", "granted"),
    [
        ("org:members:write", "org:members:write", True),
        ("org:members:write", "*:*", True),
        ("org:members:write", "org:*", True),
        ("org:members:write", "org:members:*", True),
        ("org:members:write", "org:members:write:*", True),
        ("org:members:write", "*", False),
        ("org:members:write", "org", False),
        ("org:members:write", "org:members", False),
        ("org:members:write", "org:member:*", False),
        ("org:members:write", "org:m*", False),
        ("org:members:write", "ORG:*", False),
        ("org:members:write", "project:*", False),
        ("org:read", "org:read:*", True),
        ("*", "*", False),
        ("*", "*:*", False),
    ],
)
def test_a_grant_covers_whole_segments_and_a_bare_star_nothing(permission: str, grant: str, granted: bool) -> None:
    assert permission_granted(permission, {grant}) is granted


@pytest.mark.parametrize(
    ("role", "wanted", "satisfied"),
    [
        ("owner", "admin", True),
        ("admin", "admin", True),
        ("member", "admin", False),
        ("viewer", "member", False),
        ("auditor", "viewer", False),
        ("auditor", "auditor", True),
        ("owner", "auditor", False),
    ],
)
def test_roles_are_ordered_and_own_roles_stand_alone(role: str, wanted: str, satisfied: bool) -> None:
    assert role_satisfies(role, wanted) is satisfied


def user(*permissions: str, **kw: object) -> Principal:
    memberships = {"org-1": Membership("org-1", "member", frozenset(permissions))}
    return Principal(PrincipalType.USER, "user-1", memberships=memberships, **kw)


def test_foreign_organizations_look_absent_and_own_ones_forbid() -> None:
    principal = user("project:read")
    principal.require("project:read", "org-1", MISSING)
    with pytest.raises(AccessRefused) as foreign:
        principal.require("project:read", "org-2", MISSING)
    assert (foreign.value.kind, foreign.value.code) == (Kind.NOT_FOUND, "things.not_found")
    with pytest.raises(AccessRefused) as own:
        principal.require("project:write", "org-1", MISSING)
    assert (own.value.kind, own.value.code) == (Kind.FORBIDDEN, "auth.forbidden")
    with pytest.raises(AccessRefused) as without_organization:
        principal.require("project:write", None, MISSING)
    assert without_organization.value.kind is Kind.NOT_FOUND


def test_a_super_admin_passes_everywhere_but_lists_only_own_organizations() -> None:
    principal = user("project:read", is_super_admin=True)
    principal.require("org:write", "org-2", MISSING)
    assert principal.organizations_with("project:read") == ["org-1"]


def test_an_api_key_may_what_both_its_scopes_and_its_users_role_allow() -> None:
    memberships = {"org-1": Membership("org-1", "member", frozenset({"project:*", "task:read"}))}
    key = Principal(
        PrincipalType.API_KEY,
        "key-1",
        owner_id="user-1",
        scopes=frozenset({"project:read", "task:*"}),
        memberships=memberships,
    )
    assert key.can("project:read", "org-1")
    assert not key.can("project:write", "org-1")
    assert key.can("task:read", "org-1")
    assert not key.can("task:write", "org-1")
    assert key.organizations_with("project:write") == []
    assert (key.user_id, key.subject) == ("user-1", "user:user-1")


def test_an_api_key_without_the_scope_is_not_admitted_at_all() -> None:
    memberships = {"org-1": Membership("org-1", "owner", frozenset({"project:*", "task:*"}))}
    key = Principal(
        PrincipalType.API_KEY, "key-1", owner_id="user-1", scopes=frozenset({"task:*"}), memberships=memberships
    )
    Access("task:write").admit(key)
    Access().admit(key)
    with pytest.raises(AppError) as error:
        Access("project:read").admit(key)
    assert error.value.kind is Kind.FORBIDDEN


def test_a_change_of_everything_is_refused_to_who_may_change_nothing() -> None:
    assert user("task:write").require_organizations_with("task:write") == ["org-1"]
    with pytest.raises(AccessRefused) as error:
        user("task:read").require_organizations_with("task:write")
    assert error.value.kind is Kind.FORBIDDEN


def test_agents_act_in_the_organization_of_their_token_only() -> None:
    claims = {"org": "org-1", "agent": "agent-1"}
    agent = Principal(
        PrincipalType.AGENT, "agent-1", claims=claims, memberships=machine_memberships(PrincipalType.AGENT, claims)
    )
    assert agent.organization_id == "org-1"
    assert {name for name in AGENT_PERMISSIONS if agent.can(name, "org-1")} == AGENT_PERMISSIONS
    assert not agent.can("task:write", "org-2")
    assert not agent.can("org:write", "org-1")
    with pytest.raises(AppError) as error:
        _ = agent.user_id
    assert error.value.kind is Kind.FORBIDDEN


def test_an_operation_admits_only_its_types_of_principals() -> None:
    member = user("project:read")
    Access("project:read").admit(member)
    PUBLIC.admit(member)
    for access in (Access("task:write", principals=AGENTS), Access(platform=True, principals=USERS)):
        with pytest.raises(AppError) as error:
            access.admit(member)
        assert error.value.kind is Kind.FORBIDDEN
    Access(platform=True).admit(user(is_super_admin=True))
    with pytest.raises(AppError):
        Access(principals=SIGNED_IN).admit(Principal(PrincipalType.API_KEY, "key", owner_id="user-1"))


def test_the_table_and_what_is_served_must_be_equal() -> None:
    table = AccessTable(operations={"things.list_things": Access("org:read")}, rpcs={"ListThings": frozenset({"vcs"})})
    table.check_operations({"things.list_things"})
    table.check_rpcs({"pkg.v1.ThingService/ListThings"})
    with pytest.raises(AccessTableMismatch, match=r"things\.drop has no entry"):
        table.check_operations({"things.list_things", "things.drop"})
    with pytest.raises(AccessTableMismatch, match=r"lists operation things.list_things, which nothing serves"):
        table.check_operations(set())
    with pytest.raises(AccessTableMismatch, match=r"ThingService/Drop has no entry"):
        table.check_rpcs({"pkg.v1.ThingService/ListThings", "pkg.v1.ThingService/Drop"})
    with pytest.raises(AccessTableMismatch, match="lists RPC ListThings"):
        table.check_rpcs(set())
    assert table.callers_of("pkg.v1.ThingService", "Drop") is None
