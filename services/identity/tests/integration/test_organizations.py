"""Organizations, members and roles through HTTP."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from omoios.identity.events.v1 import events_pb2 as events
from servicekit.testing.problems import assert_problem

from .conftest import Identity, Person

BASE = "/api/v1/organizations"


class TestOrganizations:
    async def test_made_read_changed_listed(self, identity: Identity) -> None:
        ada = await identity.person()
        body = {"name": "Acme", "slug": "acme", "description": "d", "billing_email": "pay@acme.example.com"}
        made = await identity.http.post(BASE, json=body, headers=ada.headers)
        assert made.status_code == 201
        organization = made.json()
        assert organization["owner_id"] == ada.id
        assert organization["max_concurrent_agents"] == 5
        path = f"{BASE}/{organization['id']}"
        changed = await identity.http.patch(
            path,
            json={"name": "Acme 2", "max_concurrent_agents": 7, "slug": "other", "owner_id": "x"},
            headers=ada.headers,
        )
        assert changed.json()["name"] == "Acme 2"
        assert changed.json()["slug"] == "acme"
        assert changed.json()["owner_id"] == ada.id
        assert (await identity.http.get(path, headers=ada.headers)).json() == changed.json()
        async with identity.running.service.db.reader() as tx:
            told = await (await tx.connection()).fetch(
                "SELECT payload FROM outbox WHERE subject LIKE 'identity.organization.%' AND aggregate_id = $1"
                " ORDER BY seq",
                organization["id"],
            )
        first = events.OrganizationCreated.FromString(told[0]["payload"])
        second = events.OrganizationUpdated.FromString(told[1]["payload"])
        limits = [(one.max_concurrent_agents, one.max_agent_runtime_hours) for one in (first, second)]
        assert limits == [(5, 100.0), (7, 100.0)], "who enforces the limits is told of them"
        listed = (await identity.http.get(BASE, headers=ada.headers)).json()
        assert [(item["name"], item["role"]) for item in listed] == [("Acme 2", "owner")]

    async def test_a_slug_is_taken_once(self, identity: Identity) -> None:
        ada = await identity.person()
        body = {"name": "Acme", "slug": "acme"}
        answers = await asyncio.gather(*(identity.http.post(BASE, json=body, headers=ada.headers) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] + [400] * 7
        assert_problem(next(answer for answer in answers if answer.status_code == 400), 400, "identity.slug_taken")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"name": "", "slug": "a"}, "name"),
            ({"name": "x" * 256, "slug": "a"}, "name"),
            ({"name": "x", "slug": "Not A Slug"}, "slug"),
            ({"name": "x", "slug": "a", "billing_email": "nobody"}, "billing_email"),
            ({"slug": "a"}, "name"),
        ],
    )
    async def test_bad_input_names_the_field(self, identity: Identity, body: dict[str, str], field: str) -> None:
        ada = await identity.person()
        answer = await identity.http.post(BASE, json=body, headers=ada.headers)
        assert answer.status_code == 422
        assert any(field in problem["loc"] for problem in answer.json()["detail"])

    async def test_strangers_see_nothing(self, identity: Identity) -> None:
        ada, eve = await identity.person(), await identity.person()
        organization = await identity.organization(ada)
        path = f"{BASE}/{organization}"
        calls = [
            ("GET", path, None),
            ("PATCH", path, {"name": "x"}),
            ("DELETE", path, None),
            ("GET", f"{path}/members", None),
            ("POST", f"{path}/members", {"user_id": eve.id, "role_id": str(uuid.uuid4())}),
            ("PATCH", f"{path}/members/{uuid.uuid4()}", {"role_id": str(uuid.uuid4())}),
            ("DELETE", f"{path}/members/{uuid.uuid4()}", None),
            ("GET", f"{path}/roles", None),
            ("POST", f"{path}/roles", {"name": "r"}),
            ("PATCH", f"{path}/roles/{uuid.uuid4()}", {"name": "r"}),
            ("DELETE", f"{path}/roles/{uuid.uuid4()}", None),
        ]
        for method, url, body in calls:
            assert_problem(await identity.http.request(method, url, json=body), 401, "auth.unauthenticated")
            foreign = await identity.http.request(method, url, json=body, headers=eve.headers)
            assert_problem(foreign, 404, "identity.organization_not_found")
            unknown = url.replace(organization, str(uuid.uuid4()))
            answer = await identity.http.request(method, unknown, json=body, headers=ada.headers)
            assert_problem(answer, 404, "identity.organization_not_found")
        assert (await identity.http.get(BASE, headers=eve.headers)).json() == []
        assert_problem(await identity.http.get(f"{path}/debug/owner-info", headers=ada.headers), 403, "auth.forbidden")

    async def test_an_archived_one_is_gone_for_all(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        admin, _ = await identity.member(ada, organization, "admin")
        path = f"{BASE}/{organization}"
        assert_problem(await identity.http.delete(path, headers=admin.headers), 403, "auth.forbidden")
        assert (await identity.http.delete(path, headers=ada.headers)).status_code == 200
        for person in (ada, admin):
            answer = await identity.http.get(path, headers=person.headers)
            assert_problem(answer, 404, "identity.organization_not_found")
            assert (await identity.http.get(BASE, headers=person.headers)).json() == []


class TestMembers:
    async def test_roles_are_enforced(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        viewer, _ = await identity.member(ada, organization, "viewer")
        member, _ = await identity.member(ada, organization, "member")
        path = f"{BASE}/{organization}"
        for person in (viewer, member):
            assert (await identity.http.get(path, headers=person.headers)).status_code == 200
            for method, url, body in (
                ("PATCH", path, {"name": "x"}),
                ("GET", f"{path}/members", None),
                ("POST", f"{path}/roles", {"name": "r"}),
            ):
                answer = await identity.http.request(method, url, json=body, headers=person.headers)
                assert_problem(answer, 403, "auth.forbidden")

    async def test_a_member_is_added_once_and_named_by_exactly_one_id(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        bob, _ = await identity.member(ada, organization, "member")
        role = await identity.role_id(ada, organization, "member")
        path = f"{BASE}/{organization}/members"
        twice = await identity.http.post(path, json={"user_id": bob.id, "role_id": role}, headers=ada.headers)
        assert_problem(twice, 409, "identity.already_member")
        nobody = {"user_id": str(uuid.uuid4()), "role_id": role}
        assert_problem(await identity.http.post(path, json=nobody, headers=ada.headers), 404, "identity.user_not_found")
        for body in ({"role_id": role}, {"role_id": role, "user_id": bob.id, "agent_id": "a"}, {"user_id": bob.id}):
            assert (await identity.http.post(path, json=body, headers=ada.headers)).status_code == 422
        agent = await identity.http.post(path, json={"agent_id": "agent-1", "role_id": role}, headers=ada.headers)
        assert agent.json()["agent_id"] == "agent-1"
        listed = (await identity.http.get(path, headers=ada.headers)).json()
        assert [item["role_name"] for item in listed] == ["owner", "member", "member"]

    async def test_the_last_owner_stays(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        path = f"{BASE}/{organization}/members"
        own = (await identity.http.get(path, headers=ada.headers)).json()[0]["id"]
        role = await identity.role_id(ada, organization, "member")
        leave = await identity.http.delete(f"{path}/{own}", headers=ada.headers)
        assert_problem(leave, 409, "identity.last_owner")
        step_down = await identity.http.patch(f"{path}/{own}", json={"role_id": role}, headers=ada.headers)
        assert_problem(step_down, 409, "identity.last_owner")

    async def test_two_owners_who_leave_at_once_leave_one(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        bob, bobs = await identity.member(ada, organization, "owner")
        path = f"{BASE}/{organization}/members"
        own = (await identity.http.get(path, headers=ada.headers)).json()[0]["id"]
        answers = await asyncio.gather(
            identity.http.delete(f"{path}/{own}", headers=ada.headers),
            identity.http.delete(f"{path}/{bobs}", headers=bob.headers),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]

    async def test_an_admin_cannot_rise_nor_touch_an_owner(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        admin, admins = await identity.member(ada, organization, "admin")
        path = f"{BASE}/{organization}"
        owner_role = await identity.role_id(ada, organization, "owner")
        rise = await identity.http.patch(
            f"{path}/members/{admins}", json={"role_id": owner_role}, headers=admin.headers
        )
        assert_problem(rise, 403, "identity.role_exceeds_own")
        owners = (await identity.http.get(f"{path}/members", headers=admin.headers)).json()[0]["id"]
        member_role = await identity.role_id(ada, organization, "member")
        for answer in (
            await identity.http.patch(f"{path}/members/{owners}", json={"role_id": member_role}, headers=admin.headers),
            await identity.http.delete(f"{path}/members/{owners}", headers=admin.headers),
            await identity.http.post(
                f"{path}/roles", json={"name": "all", "permissions": ["*:*"]}, headers=admin.headers
            ),
            await identity.http.post(
                f"{path}/roles", json={"name": "heir", "inherits_from": owner_role}, headers=admin.headers
            ),
        ):
            assert_problem(answer, 403, "identity.role_exceeds_own")

    async def test_a_removed_member_loses_access_and_may_leave_himself(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        path = f"{BASE}/{organization}"
        for leaver_is_member in (True, False):
            person, membership = await identity.member(ada, organization, "viewer")
            actor: Person = person if leaver_is_member else ada
            answer = await identity.http.delete(f"{path}/members/{membership}", headers=actor.headers)
            assert answer.status_code == 200
            await eventually_foreign(identity, person, path)


class TestRoles:
    async def test_their_number_is_bounded(self, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("identity_service.organizations.rules.MAX_ROLES", 2)
        ada = await identity.person()
        path = f"{BASE}/{await identity.organization(ada)}/roles"
        bodies = [{"name": f"role {number}", "permissions": ["org:read"]} for number in range(3)]
        made = [await identity.http.post(path, json=body, headers=ada.headers) for body in bodies]
        assert [answer.status_code for answer in made] == [201, 201, 409]
        assert_problem(made[2], 409, "identity.too_many_roles")

    async def test_made_changed_used_deleted(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        path = f"{BASE}/{organization}/roles"
        made = await identity.http.post(path, json={"name": "reader", "permissions": ["org:read"]}, headers=ada.headers)
        assert made.status_code == 201
        role = made.json()
        assert role["is_system"] is False
        person, _ = await identity.member(ada, organization, "reader")
        url = f"{BASE}/{organization}"
        assert (await identity.http.get(url, headers=person.headers)).status_code == 200
        in_use = await identity.http.delete(f"{path}/{role['id']}", headers=ada.headers)
        assert_problem(in_use, 409, "identity.role_in_use")
        changed = await identity.http.patch(
            f"{path}/{role['id']}", json={"permissions": ["task:read"]}, headers=ada.headers
        )
        assert changed.json()["permissions"] == ["task:read"]
        await eventually_forbidden(identity, person, url)
        twice = await identity.http.post(path, json={"name": "reader"}, headers=ada.headers)
        assert_problem(twice, 409, "identity.role_name_taken")
        cycle = await identity.http.patch(
            f"{path}/{role['id']}", json={"inherits_from": role["id"]}, headers=ada.headers
        )
        assert_problem(cycle, 409, "identity.role_cycle")

    async def test_system_roles_are_listed_once_and_fixed(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        path = f"{BASE}/{organization}/roles"
        names = [role["name"] for role in (await identity.http.get(path, headers=ada.headers)).json()]
        assert sorted(names) == ["admin", "agent_executor", "member", "owner", "viewer"]
        own = await identity.http.get(path, params={"include_system": False}, headers=ada.headers)
        assert own.json() == []
        owner = await identity.role_id(ada, organization, "owner")
        for answer in (
            await identity.http.patch(f"{path}/{owner}", json={"name": "x"}, headers=ada.headers),
            await identity.http.delete(f"{path}/{owner}", headers=ada.headers),
        ):
            assert_problem(answer, 400, "identity.role_is_system")

    async def test_no_role_takes_a_system_role_s_name(self, identity: Identity) -> None:
        """By the name alone an `admin` with hardly a permission would pass where a service asks for an admin."""
        ada = await identity.person()
        path = f"{BASE}/{await identity.organization(ada)}/roles"
        for name in ("owner", "admin", " Admin ", "agent_executor"):
            made = await identity.http.post(path, json={"name": name}, headers=ada.headers)
            assert_problem(made, 409, "identity.role_name_taken")
        made = await identity.http.post(path, json={"name": "administrator"}, headers=ada.headers)
        role = f"{path}/{made.json()['id']}"
        renamed = await identity.http.patch(role, json={"name": "admin"}, headers=ada.headers)
        assert_problem(renamed, 409, "identity.role_name_taken")
        kept = await identity.http.patch(role, json={"name": "administrator", "permissions": []}, headers=ada.headers)
        assert kept.status_code == 200

    async def test_permissions_have_a_form(self, identity: Identity) -> None:
        ada = await identity.person()
        organization = await identity.organization(ada)
        for permission in ("*", "org", "ORG:READ", "org:read:", ":read", "org:*:read", "x" * 101 + ":r"):
            answer = await identity.http.post(
                f"{BASE}/{organization}/roles", json={"name": "x", "permissions": [permission]}, headers=ada.headers
            )
            assert answer.status_code == 422, permission


async def eventually_foreign(identity: Identity, person: Person, path: str) -> None:
    """The organization looks absent to a removed member within the second that caches and poll take."""
    for _ in range(80):
        answer = await identity.http.get(path, headers=person.headers)
        if answer.status_code == 404:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the removed member still had access after 4 s")


async def eventually_forbidden(identity: Identity, person: Person, path: str) -> None:
    """The permission is gone within the second that caches and poll take."""
    for _ in range(80):
        answer = await identity.http.get(path, headers=person.headers)
        if answer.status_code == 403:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the member still had the permission after 4 s")
