"""Several instances of one service: balance, death, restart."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx2
import pytest

from gateway.tests.conftest import Gateway, Gateways, Upstreams
from gateway.tests.polling import answers, eventually
from omoios_local.embedded.process import free_port

PATH = "/api/v1/tasks/t1"


@pytest.fixture
def two(gateways: Gateways, upstreams: Upstreams) -> Iterator[tuple[Gateway, dict[str, int]]]:
    """A gateway over two workflow instances, ``a`` and ``b``, each a process of its own, with their ports."""
    ports = {"a": free_port(), "b": free_port()}
    upstreams.start_all({f"workflow-{name}": [f"workflow:{name}:{port}"] for name, port in ports.items()})
    try:
        yield gateways.start("two", instances={"workflow": list(ports.values())}), ports
    finally:
        for name in ports:
            if f"workflow-{name}" in upstreams.processes:
                upstreams.kill(f"workflow-{name}")


def ask(gateway: Gateway, count: int) -> Counter[str]:
    """Which instance answered how often."""
    return Counter(gateway.client.get(PATH).json()["instance"] for _ in range(count))


CUT = 0


def sent_while_running(pool: ThreadPoolExecutor, gateway: Gateway, method: str) -> list[Future[list[int]]]:
    """Statuses of what four clients send for two seconds, each one request after the other.

    CUT stands for an answer that ended in its middle: what has begun cannot be asked for again.
    """

    def one() -> list[int]:
        found = []
        with httpx2.Client(base_url=gateway.url, timeout=15.0) as client:
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                try:
                    found.append(client.request(method, PATH, content=b"{}").status_code)
                except httpx2.RemoteProtocolError:
                    found.append(CUT)
        return found

    return [pool.submit(one) for _ in range(4)]


def test_instances_share_the_load(two: tuple[Gateway, dict[str, int]]) -> None:
    counted = ask(two[0], 40)
    assert min(counted["a"], counted["b"]) >= 15


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_killed_instance_fails_no_request_that_did_not_reach_it(
    two: tuple[Gateway, dict[str, int]], upstreams: Upstreams, method: str
) -> None:
    gateway, _ = two
    with ThreadPoolExecutor(4) as pool:
        running = sent_while_running(pool, gateway, method)
        time.sleep(0.5)
        upstreams.kill("workflow-a")
        statuses = Counter(status for future in running for status in future.result())
    assert statuses[200] > 100
    assert set(statuses) <= {200, 502, CUT}
    # Each client has one request on its way when the instance dies, and may send one more into a connection whose end
    # has not arrived yet. A POST whose bytes may have arrived is not repeated.
    assert statuses[502] + statuses[CUT] <= 8
    if method == "GET":
        assert statuses[502] == 0
    assert set(ask(gateway, 10)) == {"b"}


def test_running_requests_of_a_killed_instance(two: tuple[Gateway, dict[str, int]], upstreams: Upstreams) -> None:
    gateway, ports = two

    def send(method: str, mark: str) -> httpx2.Response:
        with httpx2.Client(base_url=gateway.url, timeout=20.0) as client:
            return client.request(method, f"/api/v1/tasks/slow?seconds=1.5&mark={mark}")

    def seen(name: str) -> set[str]:
        return set(httpx2.get(f"http://127.0.0.1:{ports[name]}/seen").json()["marks"])

    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(send, "GET", f"get-{n}") for n in range(4)]
        eventually(lambda: len(seen("a") | seen("b")) == 4, "the reads have arrived")
        writes = [pool.submit(send, "POST", f"post-{n}") for n in range(4)]
        eventually(lambda: len(seen("a") | seen("b")) == 8, "the writes have arrived")
        at_a = seen("a")
        upstreams.kill("workflow-a")
        read = [future.result() for future in reads]
        written = [future.result() for future in writes]
    assert {answer.status_code for answer in read} == {200}
    assert any(mark.startswith("get") for mark in at_a)
    lost = {f"post-{number}" for number, answer in enumerate(written) if answer.status_code == 502}
    # Nobody knows whether the killed instance did them, so they must not be done again.
    assert lost == {mark for mark in at_a if mark.startswith("post")}
    assert lost
    assert not lost & seen("b")
    for answer in written:
        if answer.status_code == 502:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["code"] == "edge.service_unavailable"


def test_an_instance_that_is_not_ready_gets_nothing(two: tuple[Gateway, dict[str, int]]) -> None:
    gateway, ports = two
    httpx2.post(f"http://127.0.0.1:{ports['a']}/unready")
    eventually(lambda: set(ask(gateway, 6)) == {"b"}, "the unready instance is left out")
    httpx2.post(f"http://127.0.0.1:{ports['a']}/ready")
    eventually(lambda: set(ask(gateway, 6)) == {"a", "b"}, "the ready instance is back")


def test_instances_that_only_live_are_asked_while_none_is_ready(two: tuple[Gateway, dict[str, int]]) -> None:
    """A service that is busy or misses its database answers for itself; a 502 would say that nobody is there."""
    gateway, ports = two
    for name in ports:
        httpx2.post(f"http://127.0.0.1:{ports[name]}/unready")
    until = time.monotonic() + 3.0
    while time.monotonic() < until:
        for method in ("GET", "POST"):
            assert gateway.client.request(method, PATH).status_code == 200
        answer = gateway.client.get("/api/v1/tasks/own-503")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        time.sleep(0.05)
    httpx2.post(f"http://127.0.0.1:{ports['a']}/ready")
    eventually(lambda: set(ask(gateway, 6)) == {"a"}, "the ready instance is preferred again")


def test_a_busy_service_answers_late_and_not_by_a_502(gateways: Gateways, upstreams: Upstreams) -> None:
    """Its probe of readiness is late as well (3 s), and there is no other instance."""
    port = free_port()
    upstreams.start("workflow-busy", f"workflow:busy:{port}")
    try:
        url = gateways.start("busy", instances={"workflow": [port]}).url

        def send(path: str) -> int:
            return httpx2.post(f"{url}{path}", timeout=60.0).status_code

        with ThreadPoolExecutor(20) as pool:
            answered = [pool.submit(send, "/api/v1/tasks/busy?seconds=5")]
            for _ in range(18):
                time.sleep(0.25)
                answered.append(pool.submit(send, PATH))
            assert {future.result() for future in answered} == {200}
    finally:
        upstreams.kill("workflow-busy")


def test_a_service_that_is_all_dead_is_a_problem_and_comes_back(
    two: tuple[Gateway, dict[str, int]], upstreams: Upstreams
) -> None:
    gateway, ports = two
    upstreams.kill("workflow-a")
    upstreams.kill("workflow-b")
    for pause in (0.0, 2.0):
        time.sleep(pause)
        for method in ("GET", "POST"):
            answer = gateway.client.request(method, PATH)
            assert answer.status_code == 502, answer.text
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["code"] == "edge.service_unavailable"
    upstreams.start("workflow-a", f"workflow:a:{ports['a']}")
    eventually(lambda: gateway.client.get(PATH).status_code == 200, "the restarted instance is used", 5.0)


def test_one_of_two_instances_that_is_told_to_stop_loses_no_request(gateways: Gateways, upstreams: Upstreams) -> None:
    """Two real edge processes; the delay is shorter than the gateway needs to notice, as on a busy machine."""
    ports = [
        upstreams.start_edge(name, "local", upstreams.pending_file, delay_s=0.1) for name in ("leaving", "staying")
    ]
    for port in ports:
        eventually(lambda port=port: answers(f"http://127.0.0.1:{port}/readyz"), "the edge answers", 30.0)  # type: ignore[misc]
    gateway = gateways.start("leaving", instances={"edge": list(ports)})
    leaving = upstreams.processes.pop("leaving")

    def ask_until_it_has_left() -> list[int]:
        found = []
        with httpx2.Client(base_url=gateway.url, timeout=15.0) as client:
            while leaving.poll() is None or len(found) < 20:
                found.append(client.post("/nothing").status_code)
        return found

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask_until_it_has_left) for _ in range(4)]
        time.sleep(0.3)
        leaving.terminate()
        statuses = Counter(status for future in running for status in future.result())
    assert set(statuses) == {404}
    assert statuses[404] >= 80
