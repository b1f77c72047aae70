"""The existing web client's calls of this domain: each is answered, with every field that the client reads.

`tests/contract/frontend-calls.csv` says what it calls, `frontend-identity.json` what it reads of the answers.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from .conftest import PASSWORD, Identity, Person, Start
from .providers import LoopbackProvider, Someone, served
from .smtp import Sink, serving
from .test_account_mails import mailed_token
from .test_oauth import FRONT, PUBLIC_URL, Browser, registered_client

CONTRACT = Path(__file__).parents[4] / "tests" / "contract"
PREFIXES = ("/api/v1/auth/", "/api/v1/organizations", "/api/v1/onboarding", "/api/v1/users", "/api/v1/oauth")
OTHER = "Entirely-0ther!"


def called_by_the_client() -> set[str]:
    """`METHOD template` of each call that this service answers."""
    with (CONTRACT / "frontend-calls.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {f"{row['method']} {row['path_template']}" for row in rows if row["path_template"].startswith(PREFIXES)}


@dataclass
class Client:
    """Sends what the web client sends, and looks for what it reads."""

    identity: Identity
    reads: dict[str, list[str]]
    answers: dict[str, str]
    made: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    token: str = ""

    async def call(self, method: str, template: str, body: Any = None, **values: str) -> Any:
        """One call; `values` fill the template, what is left of them is the query."""
        names = {name for name in values if f"{{{name}}}" in template}
        path = template.format(**{name: values[name] for name in names})
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = await self.identity.http.request(
            method,
            path,
            content=json.dumps(body) if body is not None else None,
            params={name: value for name, value in values.items() if name not in names} or None,
            headers=headers | {"Content-Type": "application/json", "Origin": "http://localhost:3000"},
            follow_redirects=False,
        )
        self.identity.http.cookies.clear()
        name = f"{method} {template}"
        self.made.add(name)
        if answer.status_code == 307 and not self.answers[name]:
            return answer
        if not answer.is_success:
            self.problems.append(f"{name}: {answer.status_code} {answer.text}")
            return None
        document = answer.json()
        self.problems += [f"{name}: {problem}" for problem in self.missing(self.answers[name], document)]
        return document

    def missing(self, shape: str, document: Any) -> list[str]:
        """What a shape such as `users[] User` asks for and the document lacks; an empty list proves nothing."""
        if not shape:
            return []
        *place, kind = shape.split()
        if place:
            inside = place[0].removesuffix("[]")
            document = document[inside] if inside else document
            if not document:
                return [f"{shape}: the list is empty"]
        items = document if place else [document]
        return [f"{kind}.{name} is missing" for item in items for name in self.reads[kind] if name not in item]


async def test_every_call_is_answered_with_all_that_is_read(start: Start) -> None:
    known = json.loads((CONTRACT / "frontend-identity.json").read_text(encoding="utf-8"))
    provider = LoopbackProvider()
    async with serving() as sink, served(provider.app()) as url:
        provider.url = url
        identity = await start(
            smtp_host="127.0.0.1",
            smtp_port=sink.port,
            smtp_security="none",
            public_url=PUBLIC_URL,
            oauth_redirect_uri=FRONT,
            oauth_providers={"github": registered_client(base_url=url)},
        )
        client = Client(identity, known["types"], known["calls"])
        await account(client, sink)
        await providers(client, provider)
        await onboarding(client)
        await organizations(client)
        await waitlist(client)
        await client.call("POST", "/api/v1/auth/logout")
    assert client.problems == []
    assert client.made == called_by_the_client() == set(known["calls"])


async def account(client: Client, sink: Sink) -> None:
    """From `/register` over the mail to `/settings`."""
    auth = "/api/v1/auth"
    email = "ada@example.com"
    given = {"email": email, "password": PASSWORD, "full_name": "Ada", "department": "x", "referral_source": "a friend"}
    await client.call("POST", f"{auth}/register", given)
    await client.call("POST", f"{auth}/resend-verification", {"email": email})
    token = await mailed_token(client.identity, sink, email)
    await client.call("POST", f"{auth}/verify-email", {"token": token})
    await client.call("POST", f"{auth}/forgot-password", {"email": email})
    token = await mailed_token(client.identity, sink, email)
    await client.call("POST", f"{auth}/reset-password", {"token": token, "new_password": OTHER})
    pair = await client.call("POST", f"{auth}/login", {"email": email, "password": OTHER})
    pair = await client.call("POST", f"{auth}/refresh", {"refresh_token": pair["refresh_token"]})
    client.token = pair["access_token"]
    profile = {"full_name": "Ada L.", "department": "y", "attributes": {"bio": "b", "theme": "system"}}
    await client.call("PATCH", f"{auth}/me", profile)
    await client.call("GET", f"{auth}/me")
    passwords = {"current_password": OTHER, "new_password": PASSWORD}
    await client.call("POST", f"{auth}/change-password", passwords)
    key = await client.call("POST", f"{auth}/api-keys", {"name": "ci", "scopes": [], "expires_in_days": 30})
    await client.call("GET", f"{auth}/api-keys")
    await client.call("DELETE", f"{auth}/api-keys/{{keyId}}", keyId=key["id"])


async def providers(client: Client, provider: LoopbackProvider) -> None:
    """`/settings/integrations`."""
    oauth = "/api/v1/auth/oauth"
    await client.call("GET", f"{oauth}/providers")
    await client.call("GET", f"{oauth}/{{provider}}/url", provider="github")
    await client.call("GET", f"{oauth}/{{provider}}", provider="github")
    await client.call("GET", f"{oauth}/github", onboarding="true", return_url="/onboarding")
    await client.call("POST", f"{oauth}/github/connect")
    await client.call("POST", f"{oauth}/{{provider}}/connect", provider="github")
    provider.user = Someone(7, "ada@example.com", username="ada")
    me = await client.call("GET", "/api/v1/auth/me")
    browser = Browser(client.identity, provider, "github")
    await browser.connect(Person(me["id"], me["email"], client.token, ""))
    connected = await client.call("GET", f"{oauth}/connected")
    assert connected["providers"] == [{"provider": "github", "username": "ada", "connected": True}]
    await client.call("DELETE", f"{oauth}/{{provider}}/disconnect", provider="github")


async def onboarding(client: Client) -> None:
    """`/onboarding`: without it no page of the client is reached."""
    path = "/api/v1/onboarding"
    status = await client.call("GET", f"{path}/status")
    await client.call("POST", f"{path}/step", {"step": "github", "data": {"role": "developer"}})
    await client.call("GET", f"{path}/detect")
    synchronised = {
        "current_step": "repo",
        "completed_steps": ["welcome", "github"],
        "completed_checklist_items": ["welcome"],
        "data": {},
        "local_sync_version": status["sync_version"],
    }
    await client.call("POST", f"{path}/sync", synchronised)
    await client.call("POST", f"{path}/complete", {"data": {}})
    await client.call("POST", f"{path}/reset")


async def organizations(client: Client) -> None:
    """`/organizations` with members and roles."""
    path = "/api/v1/organizations"
    given = {"name": "Org", "slug": "org", "description": "d", "billing_email": "b@example.com"}
    made = await client.call("POST", path, given)
    org = {"orgId": made["id"]}
    await client.call("GET", path)
    await client.call("GET", f"{path}/{{orgId}}", **org)
    changed = {"name": "Org 2", "settings": {}, "max_concurrent_agents": 3, "max_agent_runtime_hours": 5.5}
    await client.call("PATCH", f"{path}/{{orgId}}", changed, **org)
    roles = await client.call("GET", f"{path}/{{orgId}}/roles", include_system="true", **org)
    by_name = {role["name"]: role["id"] for role in roles}
    role = {"organization_id": made["id"], "name": "reader", "permissions": ["org:read"], "description": "r"}
    own = await client.call("POST", f"{path}/{{orgId}}/roles", role, **org)
    await client.call("PATCH", f"{path}/{{orgId}}/roles/{{roleId}}", {"name": "readers"}, roleId=own["id"], **org)
    other = await client.identity.person()
    body = {"user_id": other.id, "role_id": by_name["viewer"]}
    member = await client.call("POST", f"{path}/{{orgId}}/members", body, **org)
    await client.call("GET", f"{path}/{{orgId}}/members", **org)
    one = f"{path}/{{orgId}}/members/{{memberId}}"
    await client.call("PATCH", one, {"role_id": by_name["member"]}, memberId=member["id"], **org)
    await client.call("DELETE", one, memberId=member["id"], **org)
    await client.call("DELETE", f"{path}/{{orgId}}/roles/{{roleId}}", roleId=own["id"], **org)
    await client.call("DELETE", f"{path}/{{orgId}}", **org)


async def waitlist(client: Client) -> None:
    """What the client's administrators may do."""
    waiting = await client.identity.person()
    async with client.identity.running.service.db.uow() as tx:
        await tx.session.execute(text("UPDATE users SET is_super_admin = true WHERE email = 'ada@example.com'"))
        await tx.session.execute(text("UPDATE users SET waitlist_status = 'pending' WHERE email <> 'ada@example.com'"))
    client.token = (await client.identity.login("ada@example.com")).access_token
    path = "/api/v1/auth/waitlist"
    await client.call("GET", path, status_filter="pending", limit="10", offset="0")
    await client.call("POST", f"{path}/{{userId}}/approve", userId=waiting.id)
    await client.call("POST", f"{path}/approve-all")
