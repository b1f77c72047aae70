"""The command line on a real stack: up, status, kill, logs, a crashed supervisor, down; as root and as another user."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from omoios_local import ports
from omoios_local.cli import app
from omoios_local.embedded.process import program, scratch_directory

INFRASTRUCTURE = "postgres,nats,redis,mail,databases"
ORDINARY_UID = 1000


@dataclass
class Terminal:
    """Runs the command line with a state directory and ports of its own: here, or in a process of another user."""

    directory: Path
    offset: int
    uid: int | None = None
    python: str = sys.executable

    def run(self, *arguments, code=0):
        named = {"OMOIOS_STATE_DIR": str(self.directory / "state"), "OMOIOS_PORT_OFFSET": str(self.offset)}
        if self.uid is None:
            done = CliRunner().invoke(app, arguments, env=named, terminal_width=200)
            assert done.exit_code == code, (done.output, done.exception)
            return done.output
        finished = subprocess.run(
            [self.python, "-m", "omoios_local", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory)} | named,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=self.uid,
            group=self.uid,
            extra_groups=[],
        )
        assert finished.returncode == code, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr

    def status(self):
        return json.loads(self.run("status", "--json"))

    def units(self):
        return {unit["part"]: unit for unit in self.status()["units"]}

    def processes(self):
        """Every process that works below the state directory: nothing of another stack."""
        state = str(self.directory / "state")
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(state in argument for argument in process.info["cmdline"] or []):
                found.append(process)
        return found


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def await_state(terminal, part, state, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while terminal.units()[part]["state"] != state:
        assert time.monotonic() < deadline, terminal.units()[part]


@pytest.fixture(scope="module")
def terminal(free_offset):
    with scratch_directory("omoios-test-") as directory:
        terminal = Terminal(directory, free_offset())
        yield terminal
        terminal.run("down")


def test_life_of_a_stack(terminal):
    assert "4 processes ready" in terminal.run("up", "--only", INFRASTRUCTURE)
    first = terminal.units()
    assert {unit["state"] for unit in first.values()} == {"ready", "done"}

    terminal.run("up", "--only", INFRASTRUCTURE)
    assert {name: unit.get("pid") for name, unit in terminal.units().items()} == {
        name: unit.get("pid") for name, unit in first.items()
    }

    assert "sent KILL to redis" in terminal.run("kill", "redis")
    await_state(terminal, "redis", "ready")
    after = terminal.units()["redis"]
    assert after["pid"] != first["redis"]["pid"]
    assert after["restarts"] == 1
    assert "nats is ready" in terminal.run("restart", "nats")
    assert terminal.units()["nats"]["pid"] != first["nats"]["pid"]

    assert "sent STOP" in terminal.run("kill", "mail", "--signal", "STOP")
    await_state(terminal, "mail", "suspended")
    terminal.run("kill", "mail", "--signal", "CONT")
    await_state(terminal, "mail", "ready")
    assert "not one of" in terminal.run("kill", "mail", "--signal", "HUP", code=1)
    assert "running are" in terminal.run("kill", "ghost", code=1)


def test_status_tells_memory_outbox_and_disk(terminal):
    terminal.run("up", "--only", INFRASTRUCTURE)
    found = terminal.status()
    units = {unit["part"]: unit for unit in found["units"]}
    assert found["port_offset"] == terminal.offset
    assert units["postgres"]["ports"] == [15432 + terminal.offset]
    assert units["postgres"]["pss_bytes"] > 1_000_000
    assert set(found["outbox"]) == set(ports.SERVICES)
    assert all(entry["pending"] == 0 and entry["bytes"] > 1_000_000 for entry in found["outbox"].values())
    assert found["disk_bytes"]["postgres"] > 10_000_000
    assert all(entry["unread"] == [] for entry in found["outbox"].values())
    screen = terminal.run("status")
    for word in ("postgres", "ready", "dead letters", "outbox", "disk: postgres"):
        assert word in screen


def test_logs_and_environment(terminal):
    terminal.run("up", "--only", INFRASTRUCTURE)
    assert "ready to accept connections" in terminal.run("logs", "postgres", "-n", "400")
    assert "supervisor | " in terminal.run("logs")
    assert "no log of ghost" in terminal.run("logs", "ghost", code=1)
    exported = terminal.run("env", "workflow")
    assert f"export OMOIOS_HTTP_PORT={18102 + terminal.offset}\n" in exported
    assert "unknown service ghost" in terminal.run("env", "ghost", code=1)


def test_busy_port_is_refused_by_name(terminal):
    terminal.run("up", "--only", INFRASTRUCTURE)
    other = Terminal(terminal.directory / "other", terminal.offset)
    other.directory.mkdir(mode=0o711)
    message = other.run("up", "--only", INFRASTRUCTURE, code=1)
    assert f"port {15432 + terminal.offset} of postgres is taken by postgres (pid" in message
    assert "OMOIOS_PORT_OFFSET" in message
    assert other.processes() == []


def test_killed_supervisor_leaves_the_parts_running_and_the_next_one_takes_over(terminal):
    terminal.run("up", "--only", INFRASTRUCTURE)
    before = terminal.units()
    [supervisor] = [process for process in terminal.processes() if "omoios_local.daemon" in process.cmdline()]
    supervisor.send_signal(signal.SIGKILL)
    psutil.wait_procs([supervisor], timeout=5)
    assert "not running" in terminal.run("status", code=3)
    assert alive(before["postgres"]["pid"])
    assert "4 processes ready" in terminal.run("up", "--only", INFRASTRUCTURE)
    assert not alive(before["postgres"]["pid"])


def test_down_leaves_no_process_and_data_stay(terminal):
    terminal.run("up", "--only", INFRASTRUCTURE)
    assert len(terminal.processes()) >= 4
    assert "the stack is down" in terminal.run("down")
    assert terminal.processes() == []
    assert "nothing was running" in terminal.run("down")
    assert (terminal.directory / "state" / "postgres" / "data" / "PG_VERSION").exists()
    assert "does not run; start it with" in terminal.run("kill", "nats", code=1)


def test_the_code_of_a_tool_passes_through_and_an_odd_offset_is_told(terminal):
    terminal.run("up", "--only", "redis")
    assert terminal.run("dlq", "--ghost", code=2) == ""
    for offset in ("abc", "-5", "60000"):
        message = Terminal(terminal.directory, offset).run("status", code=1)
        assert "OMOIOS_PORT_OFFSET must be a whole number from 0 to 40000" in message


def test_down_without_a_supervisor_ends_what_it_left(terminal):
    terminal.run("up", "--only", "nats,redis")
    [supervisor] = [process for process in terminal.processes() if "omoios_local.daemon" in process.cmdline()]
    supervisor.send_signal(signal.SIGKILL)
    psutil.wait_procs([supervisor], timeout=5)
    assert "ended nats (pid" in terminal.run("down")
    assert terminal.processes() == []


def test_reset_deletes_after_yes_only(free_offset):
    with scratch_directory("omoios-test-") as directory:
        terminal = Terminal(directory, free_offset())
        terminal.run("up", "--only", "redis")
        terminal.run("reset", code=1)
        assert (directory / "state").exists()
        assert "deleted" in terminal.run("reset", "--yes")
        assert not (directory / "state").exists()
        assert terminal.processes() == []


def python_for(uid, directory):
    """A Python with this environment's packages that another user can run, or None.

    Where this environment's own interpreter lies below a closed home folder, the system's of the same version serves,
    in an environment that points to the same packages.
    """
    if can_run(sys.executable, uid):
        return sys.executable
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(system).exists():
        return None
    environment = directory / "environment"
    subprocess.run([system, "-m", "venv", "--without-pip", environment], check=True)
    for name in ("nats-server", "traefik"):
        (environment / "bin" / name).symlink_to(program(name))
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "same.pth").write_text("\n".join(path for path in sys.path if Path(path).is_absolute()))
    python = str(environment / "bin" / "python")
    return python if can_run(python, uid) else None


def can_run(python, uid):
    probe = [python, "-c", "import omoios_local.cli"]
    try:
        return subprocess.run(probe, user=uid, group=uid, extra_groups=[], cwd="/", check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a stack as another user")
def test_ordinary_user_runs_it_alike(free_offset):
    with scratch_directory("omoios-test-") as directory:
        python = python_for(ORDINARY_UID, directory)
        if python is None:
            pytest.skip(f"neither this environment's Python nor the system's can be run by uid {ORDINARY_UID}")
        home = directory / "home"
        home.mkdir(mode=0o700)
        os.chown(home, ORDINARY_UID, ORDINARY_UID)
        terminal = Terminal(home, free_offset(), ORDINARY_UID, python)
        try:
            assert "4 processes ready" in terminal.run("up", "--only", INFRASTRUCTURE)
            owners = {process.uids().real for process in terminal.processes()}
            assert owners == {ORDINARY_UID}
            assert (home / "state").stat().st_mode & 0o777 == 0o700
        finally:
            terminal.run("down")
        assert terminal.processes() == []
        shutil.rmtree(home)
