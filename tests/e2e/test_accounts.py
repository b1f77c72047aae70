"""From registration over mails to a second member whose role decides what he may do in another service."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.e2e.world import Person, World, eventually


def mails(world: World, to: str) -> list[dict[str, Any]]:
    """The mails to an address, newest first, as the development page shows them."""
    page = urlsplit(world.client.stack().mail_page_url)
    headers = {"Authorization": f"Bearer {parse_qs(page.query)['key'][0]}"}
    answer = httpx2.get(f"http://{page.netloc}/mails.json", params={"to": to}, headers=headers, trust_env=False)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()
    return found


def confirm(world: World, person: Person) -> None:
    token = world.secret(person.email, "/verify-email")
    answer = world.http.post("/api/v1/auth/verify-email", json={"token": token})
    assert answer.status_code == 200, answer.text
    assert person.get("/auth/me")["is_verified"] is True


def test_a_second_member_joins_by_mail_and_his_role_counts_in_workflow(world: World) -> None:
    ada = world.register(confirmed=False)
    slug = f"org-{secrets.token_hex(4)}"
    refused = ada.call("POST", "/organizations", {"name": "Org", "slug": slug})
    assert (refused.status_code, refused.json()["code"]) == (403, "identity.email_not_verified")
    confirm(world, ada)
    organization = ada.post("/organizations", {"name": "Org", "slug": slug})
    path = f"/organizations/{organization['id']}"
    project = ada.post("/projects", {"organization_id": organization["id"], "name": "Shared"})
    roles = {role["name"]: role["id"] for role in ada.get(f"{path}/roles")}

    bob = world.register(confirmed=False)
    assert bob.call("GET", f"/projects/{project['id']}").status_code == 404
    ada.post(f"{path}/invitations", {"email": bob.email, "role_id": roles["viewer"]})
    invitation = {"token": world.secret(bob.email, "/invitations")}
    refused = bob.call("POST", "/invitations/accept", invitation)
    assert (refused.status_code, refused.json()["code"]) == (403, "identity.email_not_verified")
    confirm(world, bob)
    joined = bob.post("/invitations/accept", invitation)
    assert joined["role_name"] == "viewer"
    assert bob.call("POST", "/invitations/accept", invitation).status_code == 404

    ticket = {"project_id": project["id"], "title": "Who may write this?", "description": "Members."}
    eventually(lambda: bob.call("GET", f"/projects/{project['id']}").status_code == 200, "a viewer reads")
    refused = bob.call("POST", "/tickets", ticket)
    assert (refused.status_code, refused.json()["code"]) == (403, "auth.forbidden")
    ada.ok("PATCH", f"{path}/members/{joined['id']}", {"role_id": roles["member"]})
    eventually(lambda: bob.call("POST", "/tickets", ticket).is_success, "a member writes")
    ada.ok("DELETE", f"{path}/members/{joined['id']}")
    eventually(lambda: bob.call("GET", f"/projects/{project['id']}").status_code == 404, "a stranger again")
    subjects = [mail["subject"] for mail in mails(world, bob.email)]
    assert sorted(subjects) == sorted({*subjects}), "no mail came twice"
