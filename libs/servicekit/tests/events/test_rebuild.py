"""Projections built anew from their owners, and the outbox sent again to a stream that is younger than it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from omoios.identity.events.v1.events_pb2 import UserRegistered
from omoios.identity.v1 import identity_pb2 as pb
from omoios.identity.v1.identity_pb2_grpc import IdentityServiceServicer
from servicekit.clock import utc_now
from servicekit.events import ReplicaSource, rebuild
from servicekit.rpc import RpcChannels


class Identity(IdentityServiceServicer):
    """Has three memberships on two pages and one revocation."""

    async def ListMembershipSnapshot(self, request: Any, context: Any) -> Any:
        first = 0 if not request.page_token else int(request.page_token)
        rows = [
            pb.Membership(user_id=f"u-{n}", organization_id="o", role="member", active=True, version=5)
            for n in range(3)
        ]
        return pb.ListMembershipSnapshotResponse(
            memberships=rows[first : first + 2], next_page_token="2" if first == 0 else ""
        )

    async def ListRevocationSnapshot(self, request: Any, context: Any) -> Any:
        moment = Timestamp()
        moment.FromDatetime(utc_now())
        return pb.ListRevocationSnapshotResponse(
            revocations=[pb.Revocation(principal_type="user", principal_id="u-9", not_before=moment)]
        )


async def test_everything_is_built_anew_or_what_is_named(
    kit: Any, rpc_stub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    billing = await kit.party("billing")
    await kit.topology()
    async with billing.db.uow() as tx:
        for number in range(3):
            tx.emit(UserRegistered(), aggregate_id=f"u-{number}")
    raw = await billing.db.connect("test")
    # Published before the stream that exists now was made.
    await raw.execute("UPDATE outbox SET published_at = now() - interval '1 hour'")
    await raw.execute("INSERT INTO replica_memberships VALUES ('u-1', 'o', 'owner', '{}', true, 9)")
    built: list[str] = []

    async def projects() -> int:
        built.append("projects")
        return 42

    target = await rpc_stub(Identity())
    settings = billing.target.settings(nats_url=kit.nats_url, rpc_targets={"identity": target})

    def service() -> Any:
        made = billing.service
        made.settings = settings
        made.channels = RpcChannels(settings)
        made.replicas = [ReplicaSource("projects", projects)]
        return made

    await rebuild.run(service(), ["projects"])
    assert capsys.readouterr().out.splitlines()[-1:] == ["billing: projects: 42 rows"]
    assert await raw.fetchval("SELECT count(*) FROM replica_memberships") == 1

    with pytest.raises(ValueError, match="billing has no ghosts; it has access, projects, outbox"):
        await rebuild.run(service(), ["projects", "ghosts"])

    await rebuild.run(service(), [])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("billing:")]
    assert lines == [
        "billing: access: 4 rows",
        "billing: projects: 42 rows",
        "billing: outbox: 3 events go out again",
    ]
    assert built == ["projects", "projects"]
    roles = await raw.fetch("SELECT user_id, role FROM replica_memberships ORDER BY user_id")
    # A row that events have made newer than the snapshot stays.
    assert [tuple(row) for row in roles] == [("u-0", "member"), ("u-1", "owner"), ("u-2", "member")]
    assert await raw.fetchval("SELECT count(*) FROM replica_revocations") == 1
    assert await raw.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL") == 3
    await raw.close()
