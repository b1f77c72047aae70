"""The supervisor with small real processes: order, restart, backoff, signals, ports, orphans."""

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from omoios_local.embedded.process import Command, base_environment, exchange, free_port
from omoios_local.ports import PortClaim, PortsBusy
from omoios_local.processes import ProcessTable
from omoios_local.runnable import PartSpec, StepSpec
from omoios_local.state import State
from omoios_local.supervisor import NOTICED_AFTER_S, Supervisor, UpFailed

SERVER = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
STUBBORN = SERVER.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")


@dataclass
class Program:
    """A Python program as a part; `starts` counts how often it was prepared."""

    source: str
    directory: Path
    port: int = field(default_factory=free_port)
    starts: list[float] = field(default_factory=list)

    def prepare(self):
        self.starts.append(time.monotonic())

    def command(self):
        return Command((sys.executable, "-c", self.source, str(self.port)), base_environment(), self.directory)

    def ready(self):
        return exchange(self.port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


def part(program, name="web", needs=(), **options):
    return PartSpec(name, lambda _: program, needs, lambda _: [PortClaim(program.port, name)], **options)


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    return state


@pytest.fixture
async def supervise(state):
    """`supervise(specs)` → supervisor; everything it started is ended after the test."""
    made = []

    def build(*specs, **options):
        made.append(Supervisor(state, list(specs), **options))
        return made[-1]

    yield build
    for supervisor in made:
        await supervisor.down()
        assert supervisor.table.living() == []


async def until(condition, timeout_s=8.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.02)


async def test_parts_wait_for_what_they_need_and_up_twice_starts_nothing_anew(supervise, tmp_path):
    web, events = Program(SERVER, tmp_path), []

    def step():
        events.append("step")
        return f"made {events.count('step')}"

    supervisor = supervise(part(web, needs=("setup",)), StepSpec("setup", step))
    supervisor.subscribe(lambda unit: events.append((unit["part"], unit["state"])))
    first = {unit["part"]: unit for unit in await supervisor.up()}
    assert events.index("step") < events.index(("web", "starting")) < events.index(("web", "ready"))
    assert first["setup"]["detail"] == "made 1"
    second = {unit["part"]: unit for unit in await supervisor.up()}
    assert second["web"]["pid"] == first["web"]["pid"]
    assert len(web.starts) == 1
    # Steps run once more, such as migrations of a newer version, and are waited for.
    assert (second["setup"]["state"], second["setup"]["detail"]) == ("done", "made 2")


async def test_killed_process_comes_back(supervise, tmp_path):
    supervisor = supervise(part(Program(SERVER, tmp_path)))
    [before] = await supervisor.up()
    [web] = supervisor.find("web")
    assert supervisor.kill("web", signal.SIGKILL) == [before["pid"]]
    await until(lambda: web.state == "ready" and web.pid != before["pid"])
    assert (web.restarts, web.last_failure) == (1, "ended by SIGKILL")


async def test_a_process_that_is_killed_again_and_again_comes_back_as_soon_as_the_first_time(supervise, tmp_path):
    supervisor = supervise(part(Program(SERVER, tmp_path)))
    await supervisor.up()
    [web] = supervisor.find("web")
    for number in range(1, 5):
        supervisor.kill("web", signal.SIGKILL)
        await until(lambda restarts=number: web.restarts == restarts and web.state == "ready")
        assert web.failures == 1


async def test_crashing_process_is_started_ever_more_slowly_and_its_last_words_are_told(supervise, tmp_path):
    program = Program("import sys; print('no such table'); sys.exit(7)", tmp_path)
    supervisor = supervise(part(program))
    with pytest.raises(UpFailed, match="web: backoff exit code 7: no such table"):
        await supervisor.up(timeout_s=20)
    gaps = [later - earlier for earlier, later in zip(program.starts, program.starts[1:], strict=False)]
    assert len(gaps) >= 3
    assert all(gap >= delay for gap, delay in zip(gaps, (0.2, 0.4, 0.8), strict=False))


async def test_failing_step_is_tried_again(supervise):
    tries = []

    def step():
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return "third time"

    supervisor = supervise(StepSpec("setup", step))
    [unit] = await supervisor.up()
    assert (unit["detail"], len(tries)) == ("third time", 3)


async def test_process_that_never_answers_is_ended_and_reported(supervise, tmp_path):
    program = Program("import time; time.sleep(60)", tmp_path)
    supervisor = supervise(part(program, ready_within_s=0.3))
    with pytest.raises(UpFailed, match=r"not ready within 0\.3 s"):
        await supervisor.up(timeout_s=1.5)


async def test_ports_are_checked_before_anything_starts(supervise, tmp_path):
    first, second = Program(SERVER, tmp_path), Program(SERVER, tmp_path)
    with_first = supervise(part(first, "one"))
    await with_first.up()
    second.port = first.port
    supervisor = supervise(part(Program(SERVER, tmp_path), "free"), part(second, "taken"))
    with pytest.raises(PortsBusy, match=f"port {first.port} of taken is taken by python"):
        await supervisor.up()
    assert supervisor.describe() == []


async def test_suspended_and_stubborn_processes_are_ended(supervise, tmp_path):
    suspended, stubborn = Program(SERVER, tmp_path), Program(STUBBORN, tmp_path)
    supervisor = supervise(part(suspended, "suspended"), part(stubborn, "stubborn", stop_within_s=0.3))
    pids = [unit["pid"] for unit in await supervisor.up()]
    supervisor.kill("suspended", signal.SIGSTOP)
    await until(lambda: psutil.Process(pids[0]).status() == psutil.STATUS_STOPPED)
    await supervisor.down()
    assert not any(psutil.pid_exists(pid) for pid in pids)


async def test_the_front_ends_first_and_what_others_need_last(supervise, tmp_path):
    supervisor = supervise(
        part(Program(SERVER, tmp_path), "database"),
        part(Program(SERVER, tmp_path), "front", ends_before=("service",)),
        part(Program(SERVER, tmp_path), "service", needs=("database",)),
    )
    await supervisor.up()
    stopped = []
    supervisor.subscribe(lambda unit: stopped.append(unit["part"]) if unit["state"] == "stopped" else None)
    await supervisor.down()
    assert stopped == ["front", "service", "database"]


async def test_children_of_a_killed_process_do_not_stay(supervise, tmp_path):
    source = (
        "import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])\nprint(child.pid, flush=True)\n" + SERVER
    )
    supervisor = supervise(part(Program(source, tmp_path)))
    [before] = await supervisor.up()
    child = psutil.Process(before["pid"]).children()[0]
    supervisor.kill("web", signal.SIGKILL)
    await until(lambda: supervisor.describe()[0]["restarts"] == 1)
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_the_next_instance_is_restarted_only_when_callers_have_noticed_the_one_before(supervise, tmp_path):
    programs = [Program(SERVER, tmp_path), Program(SERVER, tmp_path)]
    spec = PartSpec(
        "web",
        lambda number: programs[number - 1],
        (),
        lambda number: [PortClaim(programs[number - 1].port, "web")],
        instances=2,
        scalable=True,
    )
    supervisor = supervise(spec)
    await supervisor.up()
    await supervisor.restart("web")
    first, second = (program.starts[-1] for program in programs)
    assert second - first >= NOTICED_AFTER_S


async def test_restart_waits_until_the_new_process_is_ready(supervise, tmp_path):
    web = Program(SERVER, tmp_path)
    supervisor = supervise(part(web))
    [before] = await supervisor.up()
    [after] = await supervisor.restart("web")
    assert after["pid"] != before["pid"]
    assert after["state"] == "ready"
    assert web.starts[1] - web.starts[0] < 3


async def test_instances_are_added_and_taken_away(supervise, tmp_path):
    programs = {number: Program(SERVER, tmp_path) for number in (1, 2, 3)}
    scaled, removed = [], []
    spec = PartSpec("web", programs.__getitem__, scalable=True)
    supervisor = supervise(
        spec,
        part(Program(SERVER, tmp_path), "single"),
        on_scaled=lambda: scaled.append(len(supervisor.units)),
        on_removed=lambda name, number: removed.append((name, number)),
    )
    await supervisor.up(instances={"web": 3})
    await supervisor.up()
    assert len(supervisor.find("web")) == 3
    await supervisor.up(instances={"web": 1})
    assert (len(supervisor.find("web")), removed) == (1, [("web", 3), ("web", 2)])
    assert scaled == [4, 4, 2]
    with pytest.raises(ValueError, match="single runs as one process"):
        await supervisor.up(instances={"single": 2})
    with pytest.raises(ValueError, match="web instance 2 does not run; running are single, web"):
        supervisor.find("web", 2)


async def test_next_supervisor_ends_what_a_dead_one_left_and_nothing_else(supervise, state, tmp_path):
    bystander = await asyncio.create_subprocess_exec("sleep", "60")
    orphan = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    try:
        table = ProcessTable(state)
        table.add(orphan.pid, "web", 1, signal.SIGTERM)
        table.add(bystander.pid, "web", 2, signal.SIGTERM)
        # The recorded start is another one: the process id was handed out again.
        rows = state.read(state.processes_file)["processes"]
        rows[1]["created"] -= 100
        state.write(state.processes_file, {"processes": rows})
        reaped = asyncio.create_task(orphan.wait())
        ended = await asyncio.to_thread(supervise(part(Program(SERVER, tmp_path))).recover)
        assert ended == [f"web (pid {orphan.pid})"]
        assert await reaped == -signal.SIGTERM
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


async def test_down_while_starting_leaves_nothing(supervise, tmp_path):
    programs = [Program(SERVER, tmp_path) for _ in range(4)]
    supervisor = supervise(*(part(program, f"web{number}") for number, program in enumerate(programs)))
    starting = asyncio.create_task(supervisor.up(timeout_s=3))
    await until(lambda: any(program.starts for program in programs))
    await supervisor.down()
    starting.cancel()
    with pytest.raises((asyncio.CancelledError, UpFailed)):
        await starting
    children = [child for child in psutil.Process(os.getpid()).children(recursive=True) if child.is_running()]
    ports = {str(program.port) for program in programs}
    assert not [child for child in children if child.status() != psutil.STATUS_ZOMBIE and ports & set(child.cmdline())]
