"""A service's NATS user can do its work and nothing else: against a real server."""

import asyncio
import json
import socket
import uuid

import nats
import pytest
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerConfig, DiscardPolicy, StreamConfig
from nats.js.errors import APIError

from omoios_local.embedded.nats import EmbeddedNats, NatsUser, service_user
from omoios_local.embedded.process import free_port
from omoios_local.ports import SERVICES


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    users = [service_user(name, f"{name}-secret", SERVICES) for name in SERVICES]
    users.append(NatsUser("topology", "topology-secret"))
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"), free_port(), users=users)
    server.start()
    yield server
    server.stop()


class Login:
    """A connection and the permission violations that the server told it about."""

    def __init__(self, server, user):
        self.server, self.user, self.violations = server, user, []

    async def __aenter__(self):
        async def on_error(error):
            self.violations.append(str(error))

        self.connection = await nats.connect(
            self.server.url, user=self.user, password=f"{self.user}-secret", error_cb=on_error, allow_reconnect=False
        )
        return self

    async def __aexit__(self, *_):
        await self.connection.close()

    async def refused(self, subject):
        """Publish and say whether the server refused."""
        before = len(self.violations)
        await self.connection.publish(subject, b"x")
        await self.connection.flush()
        await asyncio.sleep(0.05)
        return any("permissions violation" in text.lower() for text in self.violations[before:])


@pytest.fixture
async def streams(server):
    async with Login(server, "topology") as topology:
        jetstream = topology.connection.jetstream()
        for name in ("workflow", "billing"):
            config = StreamConfig(
                name=name.upper(), subjects=[f"{name}.>"], allow_atomic=True, discard=DiscardPolicy.OLD
            )
            await jetstream.add_stream(config)
        consumer = ConsumerConfig(durable_name="billing-ledger-workflow", filter_subject="workflow.>")
        await jetstream.add_consumer("WORKFLOW", consumer)
        yield
        for name in ("WORKFLOW", "BILLING"):
            await jetstream.delete_stream(name)


@pytest.mark.parametrize("login", [{}, {"user": "workflow", "pass": "wrong"}])
def test_wrong_password_and_no_password_are_refused(server, login):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        assert connection.recv(4096).startswith(b"INFO")
        connection.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
        assert b"Authorization Violation" in connection.recv(4096)


async def test_relay_and_consumer_work(server, streams):
    async with Login(server, "workflow") as workflow, Login(server, "billing") as billing:
        publisher, consumer = workflow.connection.jetstream(), billing.connection.jetstream()
        ack = await publisher.publish("workflow.execution.started.v1", b"one", headers={"Nats-Msg-Id": "1"})
        assert (ack.stream, ack.seq) == ("WORKFLOW", 1)
        subscription = await consumer.pull_subscribe_bind("billing-ledger-workflow", "WORKFLOW")
        [message] = await subscription.fetch(1, timeout=20)
        assert message.data == b"one"
        await message.ack_sync(timeout=20)
        after = await consumer.consumer_info("WORKFLOW", "billing-ledger-workflow")
        assert (after.num_pending, after.num_ack_pending) == (0, 0)
        assert (workflow.violations, billing.violations) == ([], [])


async def test_atomic_batch_is_accepted_whole(server, streams):
    async with Login(server, "workflow") as workflow:
        batch = uuid.uuid4().hex
        for sequence in (1, 2):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(sequence)}
            await workflow.connection.publish("workflow.ticket.created.v1", b"x", headers=headers)
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": "3", "Nats-Batch-Commit": "1"}
        answer = await workflow.connection.request("workflow.ticket.created.v1", b"x", timeout=20, headers=headers)
        assert b'"count":3' in answer.data
        assert workflow.violations == []


async def test_live_subscription_and_dead_letters(server, streams):
    async with Login(server, "workflow") as workflow, Login(server, "monitoring") as monitoring:
        live = await monitoring.connection.subscribe("workflow.>")
        await monitoring.connection.flush()
        await workflow.connection.publish("workflow.ticket.created.v1", b"live")
        assert (await live.next_msg(timeout=20)).data == b"live"
        assert not await monitoring.refused("dlq.workflow.ticket.created.v1")


@pytest.mark.parametrize(
    "subject",
    [
        "workflow.ticket.created.v1",
        "$JS.API.STREAM.DELETE.WORKFLOW",
        "$JS.API.STREAM.PURGE.WORKFLOW",
        "$JS.API.STREAM.CREATE.BILLING2",
        "$JS.API.STREAM.UPDATE.WORKFLOW",
        "$JS.API.STREAM.MSG.DELETE.WORKFLOW",
        "$JS.API.CONSUMER.DELETE.WORKFLOW.billing-ledger-workflow",
        "$JS.API.CONSUMER.CREATE.WORKFLOW.spy",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.someone.else",
    ],
)
async def test_a_service_can_neither_speak_for_another_nor_change_streams(server, streams, subject):
    async with Login(server, "billing") as billing:
        assert await billing.refused(subject)


async def test_deleting_another_services_stream_has_no_effect(server, streams):
    async with Login(server, "billing") as billing:
        with pytest.raises((NatsTimeout, NoRespondersError, APIError, nats.errors.Error)):
            await billing.connection.jsm(timeout=0.3).delete_stream("WORKFLOW")
    async with Login(server, "topology") as topology:
        assert (await topology.connection.jetstream().stream_info("WORKFLOW")).config.name == "WORKFLOW"


async def test_a_service_does_not_read_the_servers_own_subjects(server):
    async with Login(server, "billing") as billing:
        await billing.connection.subscribe("$SYS.>")
        await billing.connection.flush()
        await asyncio.sleep(0.05)
        assert any("permissions violation" in text.lower() for text in billing.violations)


def test_every_acknowledged_message_is_synced(server):
    assert '"sync_interval": "always"' in server.config_file.read_text()
    assert server.config_file.stat().st_mode & 0o077 == 0


async def test_an_acknowledged_message_survives_kill_9(tmp_path):
    server = EmbeddedNats(tmp_path, free_port())
    server.start()
    try:
        connection = await nats.connect(server.url, allow_reconnect=False)
        await connection.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept.>"]))
        await connection.jetstream().publish("kept.one", b"1")
        await connection.close()
        server.kill()
        server.start()
        connection = await nats.connect(server.url, allow_reconnect=False)
        assert (await connection.jetstream().stream_info("KEPT")).state.messages == 1
        await connection.close()
    finally:
        server.stop()
