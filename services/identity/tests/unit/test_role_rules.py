"""Roles: inheritance, cycles, and that nobody can grant more than he holds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_service.organizations import rules
from identity_service.organizations.rules import RoleNode
from servicekit.auth import permission_granted

NOUNS = ["org", "ticket", "task"]
PERMISSIONS = st.sampled_from(
    [f"{noun}:{verb}" for noun in NOUNS for verb in ("read", "write", "*")]
    + ["org:members:read", "org:members:*", "*:*"]
)


@pytest.mark.parametrize("name", sorted(rules.SYSTEM_ROLES))
def test_system_permissions_have_the_form_that_roles_may_have(name: str) -> None:
    _, permissions = rules.SYSTEM_ROLES[name]
    assert permissions
    assert all(rules.PERMISSION.match(permission) for permission in permissions)


def test_each_role_covers_the_one_below() -> None:
    order = [rules.VIEWER, rules.MEMBER, rules.ADMIN, rules.OWNER]
    for lower, higher in itertools.pairwise(order):
        assert rules.excess(rules.SYSTEM_ROLES[higher][1], rules.SYSTEM_ROLES[lower][1]) == []
        assert rules.excess(rules.SYSTEM_ROLES[lower][1], rules.SYSTEM_ROLES[higher][1]) != []


@given(own=st.sets(PERMISSIONS), wanted=PERMISSIONS)
def test_what_is_covered_grants_nothing_new(own: set[str], wanted: str) -> None:
    """Whatever a covered grant would allow, the own grants allow as well."""
    if not rules.covers(own, wanted):
        return
    for noun in NOUNS:
        for verb in ("read", "write", "members:read"):
            permission = f"{noun}:{verb}"
            if permission_granted(permission, {wanted}):
                assert permission_granted(permission, own)


def test_inheritance_is_followed_to_the_end_and_survives_a_cycle() -> None:
    roles = {
        "a": RoleNode("a", ("org:read",), "b"),
        "b": RoleNode("b", ("task:read",), "c"),
        "c": RoleNode("c", ("ticket:read",), "a"),
    }
    assert rules.effective_permissions("a", roles) == {"org:read", "task:read", "ticket:read"}
    assert rules.effective_permissions("missing", roles) == frozenset()


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdef") | st.none()))
def test_a_role_that_makes_no_cycle_never_reaches_itself(parents: dict[str, str | None]) -> None:
    roles = {name: RoleNode(name, (), parent) for name, parent in parents.items()}
    for name in roles:
        others = {key: node for key, node in roles.items() if key != name}
        for parent in [*roles, None]:
            if not rules.makes_cycle(name, parent, others):
                seen, current = {name}, parent
                while current is not None:
                    assert current not in seen
                    seen.add(current)
                    current = others[current].inherits_from if current in others else None


def test_roles_below_a_changed_one_are_found() -> None:
    roles = {
        "a": RoleNode("a", (), None),
        "b": RoleNode("b", (), "a"),
        "c": RoleNode("c", (), "b"),
        "d": RoleNode("d", (), None),
    }
    assert rules.affected_roles("a", roles) == {"a", "b", "c"}
