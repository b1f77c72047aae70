"""Random changes of members and roles, also two at once: an organization keeps an owner, nobody rises by himself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity_service.organizations import rules
from identity_service.organizations.member_service import MemberService
from identity_service.organizations.role_service import RoleService
from identity_service.organizations.schemas import (
    AddMember,
    CreateOrganization,
    CreateRole,
    TransferOwnership,
    UpdateRole,
)
from identity_service.organizations.service import OrganizationService
from servicekit.auth import Membership, Principal, PrincipalType
from servicekit.errors import AppError, Kind
from servicekit.ids import new_id
from servicekit.testing.profiles import examples

from .conftest import Identity

PEOPLE = 4
PERMISSIONS = ("org:read", "org:write", "org:members:*", "org:*", "task:write", "task:*", "*:*", "billing:read")

NUMBER = st.integers(0, 30)
"""Chooses among what there is, by the remainder."""
GRANTS = st.lists(st.sampled_from(PERMISSIONS), max_size=3, unique=True)
STEP = st.one_of(
    st.tuples(st.just("add"), NUMBER, NUMBER, NUMBER),
    st.tuples(st.just("change"), NUMBER, NUMBER, NUMBER),
    st.tuples(st.just("remove"), NUMBER, NUMBER),
    st.tuples(st.just("leave"), NUMBER),
    st.tuples(st.just("transfer"), NUMBER, NUMBER, st.booleans()),
    st.tuples(st.just("create_role"), NUMBER, GRANTS, st.none() | NUMBER),
    st.tuples(st.just("update_role"), NUMBER, NUMBER, st.none() | GRANTS, st.none() | NUMBER),
    st.tuples(st.just("delete_role"), NUMBER, NUMBER),
)
# Most steps alone, some as two at once.
STEPS = st.lists(st.tuples(STEP) | st.tuples(STEP, STEP), min_size=4, max_size=14)


@dataclass(frozen=True)
class State:
    """What the database holds: user → (membership id, role id, permissions); role id → node; the named owner."""

    members: Mapping[str, tuple[str, str, frozenset[str]]]
    roles: Mapping[str, rules.RoleNode]
    owner_role: str
    owner_id: str


class Tenant:
    """One organization, driven through the use cases with the rights that each caller had before the step."""

    def __init__(self, identity: Identity, people: list[str]) -> None:
        self.db = identity.running.service.db
        self.organizations = OrganizationService(self.db, identity.running.service.settings)
        self.members = MemberService(self.db)
        self.roles = RoleService(self.db)
        self.people = people
        self.id = ""

    async def found(self) -> None:
        body = CreateOrganization(name="Org", slug=new_id())
        made = await self.organizations.create(Principal(PrincipalType.USER, self.people[0]), body)
        self.id = made.id

    async def state(self) -> State:
        async with self.db.uow() as tx:
            connection = await tx.connection()
            members = await connection.fetch(
                "SELECT id, user_id, role_id FROM organization_memberships WHERE organization_id = $1 ORDER BY id",
                self.id,
            )
            rows = await connection.fetch(
                "SELECT id, permissions, inherits_from, organization_id, name FROM roles"
                " WHERE organization_id = $1 OR organization_id IS NULL ORDER BY organization_id NULLS FIRST, name, id",
                self.id,
            )
            owner_id = await connection.fetchval("SELECT owner_id FROM organizations WHERE id = $1", self.id)
        roles = {
            row["id"]: rules.RoleNode(
                row["id"], tuple(row["permissions"]), row["inherits_from"], row["organization_id"] is not None
            )
            for row in rows
        }
        return State(
            members={
                row["user_id"]: (row["id"], row["role_id"], rules.effective_permissions(row["role_id"], roles))
                for row in members
            },
            roles=roles,
            owner_role=next(row["id"] for row in rows if row["name"] == "owner" and row["organization_id"] is None),
            owner_id=owner_id,
        )

    def principal(self, state: State, number: int) -> Principal:
        user = self.people[number % PEOPLE]
        held = state.members.get(user)
        memberships = {self.id: Membership(self.id, "any", held[2])} if held is not None else {}
        return Principal(PrincipalType.USER, user, memberships=memberships)

    def call(self, state: State, step: tuple[Any, ...]) -> tuple[Principal, Callable[[], Awaitable[object]]]:
        name, who, *rest = step
        caller = self.principal(state, who)
        roles = list(state.roles)
        member_ids = [member[0] for member in state.members.values()]

        def role(number: int | None) -> UUID | None:
            return UUID(roles[number % len(roles)]) if number is not None else None

        def member(number: int) -> str:
            return member_ids[number % len(member_ids)]

        if name == "add":
            body = AddMember(user_id=UUID(self.people[rest[0] % PEOPLE]), role_id=role(rest[1]))
            return caller, lambda: self.members.add(caller, self.id, body)
        if name == "change":
            return caller, lambda: self.members.change(caller, self.id, member(rest[0]), str(role(rest[1])))
        if name == "remove":
            return caller, lambda: self.members.remove(caller, self.id, member(rest[0]))
        if name == "leave":
            return caller, lambda: self.members.leave(caller, self.id)
        if name == "transfer":
            transfer = TransferOwnership(member_id=UUID(member(rest[0])), stay_owner=rest[1])
            return caller, lambda: self.organizations.transfer(caller, self.id, transfer)
        if name == "create_role":
            made = CreateRole(name=new_id(), permissions=rest[0], inherits_from=role(rest[1]))
            return caller, lambda: self.roles.create(caller, self.id, made)
        if name == "update_role":
            changes = {"permissions": rest[1]} if rest[1] is not None else {}
            changed = UpdateRole(inherits_from=role(rest[2]), **changes)
            return caller, lambda: self.roles.update(caller, self.id, str(role(rest[0])), changed)
        return caller, lambda: self.roles.delete(caller, self.id, str(role(rest[0])))


async def attempt(call: Callable[[], Awaitable[object]]) -> None:
    """A refusal is fine; a failure is not."""
    try:
        await call()
    except AppError as error:
        if error.kind not in {Kind.FORBIDDEN, Kind.NOT_FOUND, Kind.CONFLICT, Kind.REFUSED}:
            raise


def check(before: State, after: State, callers: list[str]) -> None:
    owners = [user for user, (_, role, _) in after.members.items() if role == after.owner_role]
    assert owners, "nobody owns the organization"
    assert after.owner_id in owners, "the named owner owns nothing"
    held = frozenset[str]().union(*(before.members[user][2] for user in callers if user in before.members))
    for user, (_, _, permissions) in after.members.items():
        had = before.members[user][2] if user in before.members else frozenset()
        gained = [permission for permission in permissions if not rules.covers(had, permission)]
        assert rules.excess(held, gained) == [], f"{user} got what no caller had"
    for role_id in after.roles:
        seen: list[str] = []
        current: str | None = role_id
        while current is not None:
            assert current not in seen, "a role inherits from itself"
            seen.append(current)
            current = after.roles[current].inherits_from
        assert len(seen) - 1 <= rules.MAX_DEPTH


@given(steps=STEPS)
@settings(
    max_examples=examples(20),
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture],
)
async def test_an_owner_stays_and_nobody_rises(identity: Identity, steps: list[tuple[tuple[Any, ...], ...]]) -> None:
    people = getattr(identity, "people", None)
    if people is None:
        people = [(await identity.person()).id for _ in range(PEOPLE)]
        identity.people = people  # type: ignore[attr-defined]
    tenant = Tenant(identity, people)
    await tenant.found()
    state = await tenant.state()
    for together in steps:
        calls = [tenant.call(state, step) for step in together]
        await asyncio.gather(*(attempt(call) for _, call in calls))
        after = await tenant.state()
        check(state, after, [caller.id for caller, _ in calls])
        state = after
