"""Port plan, free-port check and its message."""

import os
import socket

import pytest

from omoios_local import ports
from omoios_local.embedded.process import free_port
from omoios_local.ports import PortClaim, PortPlan, PortsBusy


def test_every_part_has_the_documented_default_port():
    plan = PortPlan()
    fixed = {name: plan.fixed(name) for name in ("gateway", "postgres", "redis", "nats")}
    assert fixed == {"gateway": 18000, "postgres": 15432, "redis": 16379, "nats": 14222}
    assert [plan.http(name) for name in ports.SERVICES] == [18101, 18102, 18103, 18104, 18105, 18106]
    assert [plan.rpc(name) for name in ports.SERVICES] == [18201, 18202, 18203, 18204, 18205, 18206]
    assert plan.http("edge") == 18107


def test_offset_shifts_every_port():
    plain, shifted = PortPlan(), PortPlan(1000)
    for part in (*ports.FIXED, *ports.HTTP):
        moved = [claim.port - 1000 for claim in shifted.claims(part)]
        assert moved == [claim.port for claim in plain.claims(part)] != []


def test_no_two_parts_share_a_port():
    plan = PortPlan()
    claims = [claim.port for part in (*ports.FIXED, *ports.HTTP) for claim in plan.claims(part)]
    assert len(claims) == len(set(claims))


def test_second_instance_skips_a_busy_place(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: port != 18212)
    plan = PortPlan()
    assert plan.http("workflow", 2) == 18122
    assert plan.rpc("workflow", 2) == 18222
    assert plan.http("workflow", 3) == 18132
    plan.release("workflow", 2)
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    assert plan.http("workflow", 4) == 18112


def test_more_instances_than_places_are_refused(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(RuntimeError, match="no free port is left for another instance of billing"):
        PortPlan().http("billing", 2)


def test_busy_port_names_port_part_and_process():
    free, taken = free_port(), socket.socket()
    with taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortsBusy) as caught:
            ports.check([PortClaim(port, "gateway"), PortClaim(free, "edge")])
    message = str(caught.value)
    assert f"port {port} of gateway is taken by" in message
    assert f"(pid {os.getpid()})" in message
    assert "edge" not in message
    assert "OMOIOS_PORT_OFFSET" in message


def test_free_ports_pass_even_after_a_connection_was_closed_there():
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()
    ports.check([PortClaim(port, "gateway")])
