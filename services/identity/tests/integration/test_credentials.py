"""Users' own keys, and what services get of them and of connected accounts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from identity_service.credentials.adapters import PinnedTransport
from identity_service.settings import Settings
from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceStub
from servicekit.errors import AppError, Kind
from servicekit.rpc import RpcChannels
from servicekit.testing.problems import assert_problem

from .conftest import SERVICE_SECRET, Identity, Person, Start
from .providers import LoopbackProvider, Someone, served
from .test_oauth import Browser, identity, provider  # noqa: F401

KEYS = "/api/v1/credentials"
SECRET = "sk-ant-very-secret-key-1234"


@pytest.fixture
async def stub(identity: Identity) -> AsyncIterator[IdentityServiceStub]:  # noqa: F811
    channels = RpcChannels(
        Settings(
            env="test",
            rpc_targets={"identity": f"127.0.0.1:{identity.running.rpc_port}"},
            service_secret=SERVICE_SECRET,
        ),
        service="agents",
    )
    await channels.start()
    yield IdentityServiceStub(channels.channel("identity"))
    await channels.close()


async def save(identity: Identity, person: Person, provider: str = "anthropic", **body: Any) -> Any:  # noqa: F811
    body.setdefault("api_key", SECRET)
    return await identity.http.post(f"{KEYS}/{provider}", json=body, headers=person.headers)


async def listed(identity: Identity, person: Person) -> list[dict[str, Any]]:  # noqa: F811
    found: list[dict[str, Any]] = (await identity.http.get(KEYS, headers=person.headers)).json()
    return found


async def execute(identity: Identity, statement: str, *arguments: object) -> Any:  # noqa: F811
    connection = await asyncpg.connect(identity.running.service.settings.database_url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


@pytest.mark.usefixtures("provider")
class TestKeeping:
    async def test_a_key_is_kept_sealed_and_never_shown(self, identity: Identity) -> None:  # noqa: F811
        ada = await identity.person()
        answer = await save(identity, ada, model="claude", base_url="https://proxy.example.com/")
        assert answer.status_code == 201
        body = answer.json()
        assert (body["masked_key"], body["is_default"], body["name"]) == ("…1234", True, "default")
        assert body["base_url"] == "https://proxy.example.com"
        assert SECRET not in answer.text
        assert [entry["id"] for entry in await listed(identity, ada)] == [body["id"]]
        rows = await execute(identity, "SELECT sealed_key FROM user_credentials")
        assert SECRET.encode() not in rows[0]["sealed_key"]
        trail = await execute(identity, "SELECT details::text AS text FROM audit_log WHERE action LIKE 'credential.%'")
        assert len(trail) == 1
        assert SECRET not in trail[0]["text"]

    async def test_saving_again_replaces_and_one_is_the_default(self, identity: Identity) -> None:  # noqa: F811
        ada = await identity.person()
        first = (await save(identity, ada)).json()
        replaced = (await save(identity, ada, api_key="another-key-9999")).json()
        assert (replaced["id"], replaced["masked_key"]) == (first["id"], "…9999")
        assert replaced["is_default"] is True
        second = (await save(identity, ada, name="work")).json()
        assert second["is_default"] is False
        await identity.http.patch(
            f"{KEYS}/anthropic", params={"name": "work"}, json={"is_default": True}, headers=ada.headers
        )
        assert [(entry["name"], entry["is_default"]) for entry in await listed(identity, ada)] == [
            ("work", True),
            ("default", False),
        ]

    async def test_changing_names_what_changes(self, identity: Identity) -> None:  # noqa: F811
        ada = await identity.person()
        await save(identity, ada, model="claude", base_url="https://proxy.example.com")
        changed = await identity.http.patch(f"{KEYS}/anthropic", json={"model": None}, headers=ada.headers)
        assert (changed.json()["model"], changed.json()["base_url"]) == (None, "https://proxy.example.com")

    async def test_keys_of_others_look_absent(self, identity: Identity) -> None:  # noqa: F811
        ada, bob = await identity.person(), await identity.person()
        await save(identity, ada)
        assert await listed(identity, bob) == []
        for method, path, body in (
            ("PATCH", "anthropic", {"is_active": False}),
            ("DELETE", "anthropic", None),
            ("POST", "anthropic/validate", None),
        ):
            answer = await identity.http.request(method, f"{KEYS}/{path}", json=body, headers=bob.headers)
            assert_problem(answer, 404, "identity.credential_not_found")
        assert (await identity.http.delete(f"{KEYS}/anthropic", headers=ada.headers)).status_code == 200
        assert await listed(identity, ada) == []

    async def test_bad_input_names_the_field(self, identity: Identity) -> None:  # noqa: F811
        ada = await identity.person()
        for change, field in (
            ({"api_key": "short"}, "api_key"),
            ({"api_key": "with a space inside"}, "api_key"),
            ({"api_key": "line\r\nbreak-in-it"}, "api_key"),
            ({"base_url": "ftp://example.com"}, "base_url"),
            ({"base_url": "https://user:pass@example.com"}, "base_url"),
            ({"base_url": "https://example.com/?x=1"}, "base_url"),
            ({"base_url": "https://"}, "base_url"),
            ({"base_url": "https://[::1"}, "base_url"),
            ({"name": ""}, "name"),
            ({"model": "x" * 101}, "model"),
        ):
            answer = await save(identity, ada, **change)
            assert answer.status_code == 422, change
            assert answer.json()["detail"][0]["loc"][:2] == ["body", field]

    async def test_an_unknown_provider_is_422_and_fifty_keys_are_enough(self, identity: Identity) -> None:  # noqa: F811
        ada = await identity.person()
        assert (await save(identity, ada, "nobody")).status_code == 422
        for number in range(50):
            assert (await save(identity, ada, name=f"key {number}")).status_code == 201
        assert_problem(await save(identity, ada, name="one more"), 409, "identity.too_many_credentials")
        assert (await save(identity, ada, name="key 7")).status_code == 201


class TestValidating:
    @pytest.fixture
    async def model_provider(self) -> AsyncIterator[str]:
        async def models(request: Request) -> Response:
            key = request.headers.get("x-api-key")
            return Response(status_code=200 if key == SECRET else 500 if key == "broken-key" else 401)

        async with served(Starlette(routes=[Route("/v1/models", models)])) as url:
            yield url

    @pytest.mark.parametrize(("key", "valid"), [(SECRET, True), ("a-wrong-key", False)])
    async def test_the_provider_is_asked(self, start: Start, model_provider: str, key: str, valid: bool) -> None:
        identity = await start(reachable_private_hosts=["127.0.0.1"])  # noqa: F811
        ada = await identity.person()
        await save(identity, ada, api_key=key, base_url=model_provider)
        answer = await identity.http.post(f"{KEYS}/anthropic/validate", headers=ada.headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["valid"] is valid

    async def test_an_answer_that_tells_nothing_and_a_provider_that_is_away_are_503(
        self, start: Start, model_provider: str
    ) -> None:
        identity = await start(reachable_private_hosts=["127.0.0.1"])  # noqa: F811
        ada = await identity.person()
        await save(identity, ada, api_key="broken-key", base_url=model_provider)
        answer = await identity.http.post(f"{KEYS}/anthropic/validate", headers=ada.headers)
        assert_problem(answer, 503, "identity.provider_unreachable")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            await save(identity, ada, base_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
            answer = await identity.http.post(f"{KEYS}/anthropic/validate", headers=ada.headers)
        assert answer.status_code == 503

    async def test_this_machine_and_its_network_cannot_be_called(self, identity: Identity) -> None:  # noqa: F811
        """Nothing arrives at a listener on loopback, whichever way it is named."""
        called = asyncio.Event()

        async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            called.set()
            writer.close()

        listener = await asyncio.start_server(arrived, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener:
            ada = await identity.person()
            for base_url in (
                f"http://127.0.0.1:{port}",
                f"https://127.0.0.1:{port}",
                f"https://localhost:{port}",
                f"https://[::1]:{port}",
                f"https://[::ffff:127.0.0.1]:{port}",
                f"https://0.0.0.0:{port}",
                "https://169.254.169.254",
                "https://10.0.0.1",
                "https://100.64.0.1",
                "https://[fd00::1]",
                "https://[64:ff9b::7f00:1]",
                "https://[2002:7f00:1::]",
            ):
                await save(identity, ada, base_url=base_url)
                answer = await identity.http.post(f"{KEYS}/anthropic/validate", headers=ada.headers)
                assert answer.status_code == 422, (base_url, answer.text)
                assert answer.json()["detail"][0]["loc"] == ["body", "base_url"]
            assert not called.is_set()

    async def test_what_was_checked_is_what_is_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name server that answers a public address first and a private one afterwards gains nothing."""
        answers = iter(["93.184.215.14", "127.0.0.1"])
        asked: list[str] = []

        async def getaddrinfo(*_: object, **__: object) -> list[Any]:
            address = next(answers)
            asked.append(address)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
        sent: list[httpx2.Request] = []

        class Inner(httpx2.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
                sent.append(request)
                return httpx2.Response(200)

        transport = PinnedTransport()
        await transport._inner.aclose()
        monkeypatch.setattr(transport, "_inner", Inner())
        async with httpx2.AsyncClient(transport=transport) as client:
            await client.get("https://rebinding.example.com/v1/models")
        assert asked == ["93.184.215.14"]
        assert sent[0].url.host == "93.184.215.14"
        assert sent[0].headers["host"] == "rebinding.example.com"
        assert sent[0].extensions["sni_hostname"] == "rebinding.example.com"


class TestRpc:
    async def test_a_connected_account_s_token_then_the_user_s_key_then_nothing(
        self,
        identity: Identity,  # noqa: F811
        provider: LoopbackProvider,  # noqa: F811
        stub: IdentityServiceStub,
    ) -> None:
        ada = await identity.person()
        request = pb.GetProviderCredentialRequest(user_id=ada.id, provider="github")
        with pytest.raises(AppError) as missing:
            await stub.GetProviderCredential(request)
        assert (missing.value.kind, missing.value.code) == (Kind.NOT_FOUND, "identity.provider_not_connected")
        await save(identity, ada, "github", api_key="ghp_personal_token")
        found = await stub.GetProviderCredential(request)
        assert (found.secret, found.source) == ("ghp_personal_token", "credential")
        assert (await listed(identity, ada))[0]["last_used_at"] is not None
        provider.user = Someone(7, None, username="ada")
        await Browser(identity, provider, "github").connect(ada)
        found = await stub.GetProviderCredential(request)
        assert (found.source, found.username) == ("oauth", "ada")
        assert found.secret in provider.access

    async def test_bad_requests_name_the_field(self, identity: Identity, stub: IdentityServiceStub) -> None:  # noqa: F811
        with pytest.raises(AppError) as refused:
            await stub.GetProviderCredential(pb.GetProviderCredentialRequest(user_id="x"))
        assert refused.value.kind is Kind.INVALID

    async def test_fifty_callers_at_once_refresh_an_expired_token_once(
        self,
        identity: Identity,  # noqa: F811
        provider: LoopbackProvider,  # noqa: F811
        stub: IdentityServiceStub,
    ) -> None:
        """Refresh tokens rotate here, and one that is used twice ends its grant."""
        ada = await identity.person()
        provider.user, provider.expires_in = Someone(7, None), 3600
        await Browser(identity, provider, "gitlab").connect(ada)
        await execute(identity, "UPDATE oauth_identities SET access_expires_at = now() - interval '1 second'")
        provider.delay_s = 0.2
        request = pb.GetProviderCredentialRequest(user_id=ada.id, provider="gitlab")
        found = await asyncio.gather(*(stub.GetProviderCredential(request, timeout=20) for _ in range(50)))
        assert provider.refreshed == 1
        assert len({answer.secret for answer in found}) == 1
        assert found[0].secret in provider.access
        assert found[0].expires_at.ToDatetime(tzinfo=UTC) > datetime.now(UTC)

    async def test_a_claim_of_a_dead_instance_runs_out(
        self,
        identity: Identity,  # noqa: F811
        provider: LoopbackProvider,  # noqa: F811
        stub: IdentityServiceStub,
    ) -> None:
        ada = await identity.person()
        provider.user, provider.expires_in = Someone(7, None), 3600
        await Browser(identity, provider, "gitlab").connect(ada)
        await execute(
            identity,
            "UPDATE oauth_identities SET access_expires_at = now(), refreshing_until = now() + interval '1 second'",
        )
        request = pb.GetProviderCredentialRequest(user_id=ada.id, provider="gitlab")
        assert (await stub.GetProviderCredential(request, timeout=20)).secret in provider.access
        assert provider.refreshed == 1

    async def test_a_provider_that_is_away_is_503_and_one_that_ended_the_grant_404(
        self,
        identity: Identity,  # noqa: F811
        provider: LoopbackProvider,  # noqa: F811
        stub: IdentityServiceStub,
    ) -> None:
        ada = await identity.person()
        provider.user, provider.expires_in = Someone(7, None), 3600
        await Browser(identity, provider, "gitlab").connect(ada)
        await execute(identity, "UPDATE oauth_identities SET access_expires_at = now()")
        request = pb.GetProviderCredentialRequest(user_id=ada.id, provider="gitlab")
        provider.down = True
        with pytest.raises(AppError) as away:
            await stub.GetProviderCredential(request, timeout=20)
        assert away.value.kind is Kind.UNAVAILABLE
        provider.down = False
        provider.refresh.clear()
        with pytest.raises(AppError) as ended:
            await stub.GetProviderCredential(request, timeout=20)
        assert ended.value.code == "identity.provider_not_connected"
        trail = await execute(identity, "SELECT 1 FROM audit_log WHERE action = 'oauth.grant_ended'")
        assert len(trail) == 1
