"""Commands that meet: several `up` at once, and an `up` while the stack goes down."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from omoios_local.client import StackClient
from omoios_local.embedded.process import scratch_directory
from omoios_local.state import State


@pytest.fixture
def client(free_offset):
    with scratch_directory("omoios-test-") as directory:
        client = StackClient(State(directory / "state"), free_offset())
        yield client
        client.down()


def test_several_at_once_bring_up_one_stack(client):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: client.up(["redis"]), range(3)))
    [pid] = {unit["pid"] for units in found for unit in units}
    assert [unit["pid"] for unit in client.status()] == [pid]
    assert "Traceback" not in (client.state.logs / "supervisor.log").read_text()


def test_up_while_the_stack_goes_down_starts_it_anew(client):
    [before] = client.up(["redis"])
    going = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        down = pool.submit(client.down, lambda _: going.set())
        assert going.wait(30)
        [after] = client.up(["redis"])
        assert down.result() == []
    assert after["state"] == "ready"
    assert after["pid"] != before["pid"]
