"""Rotation and the log view."""

import pytest

from omoios_local import logview
from omoios_local.client import log_files
from omoios_local.rotation import rotate
from omoios_local.state import State


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    for name in ("vcs", "vcs-2", "nats"):
        (state.logs / f"{name}.log").write_text(f"{name} one\n{name} two\n")
    return state


def test_a_part_has_the_logs_of_all_its_instances(state):
    assert [file.name for file in log_files(state, "vcs")] == ["vcs-2.log", "vcs.log"]
    assert len(log_files(state, None)) == 3
    with pytest.raises(ValueError, match="no log of ghost"):
        log_files(state, "ghost")


def test_the_last_lines_are_shown_with_their_part(state, capsys):
    logview.show(log_files(state, "vcs"), 1, follow=False)
    assert capsys.readouterr().out.splitlines() == ["vcs-2 | vcs-2 two", "vcs   | vcs two"]
    logview.show(log_files(state, "nats"), 9, follow=False)
    assert capsys.readouterr().out.splitlines() == ["nats one", "nats two"]


def test_new_lines_are_followed_over_a_rotation(state, capsys):
    file = state.logs / "nats.log"
    position = file.stat().st_size
    with file.open("a") as log:
        log.write("three\nhalf a li")
        log.flush()
        position = logview.print_new(file, position, 0)
        log.write("ne\n")
        log.flush()
        position = logview.print_new(file, position, 0)
        assert rotate(file, max_bytes=5)
        log.write("after\n")
        log.flush()
        position = logview.print_new(file, position, 0)
    assert capsys.readouterr().out.splitlines() == ["three", "half a line", "after"]


def test_rotation_keeps_the_newest_and_drops_the_oldest(tmp_path):
    log = tmp_path / "part.log"
    for generation in range(5):
        log.write_text(f"generation {generation}\n" * 10)
        assert rotate(log, max_bytes=50, keep=3)
        assert log.stat().st_size == 0
    kept = {path.name: path.read_text().split("\n")[0] for path in tmp_path.glob("part.log.*")}
    assert kept == {"part.log.1": "generation 4", "part.log.2": "generation 3", "part.log.3": "generation 2"}


def test_a_writer_goes_on_after_rotation(tmp_path):
    log = tmp_path / "part.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"before\n" * 20)
        assert rotate(log, max_bytes=50)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert not rotate(log, max_bytes=50)


LINES = [
    b'{"event": "started", "level": "info", "error": null}\n',
    b'{"event": "job_failed", "level": "error"}\n',
    b'{"level":"warn","message":"traefik"}\n',
    b'{"event": "a title with ERRORS", "level": "info"}\n',
    b"[1] 2026/11/28 18:00:00.000000 [INF] Listening\n",
    b"[1] 2026/11/28 18:00:00.000000 [ERR] no\n",
    b"2026-11-28 18:00:00.000 UTC [1] LOG:  ready\n",
    b"2026-11-28 18:00:00.000 UTC [1] FATAL:  no role\n",
    b"2026-11-28 18:00:00.000 UTC [1] STATEMENT:  select 1\n",
    b"7:M 28 Nov 2026 18:00:00.000 * Ready\n",
    b"7:M 28 Nov 2026 18:00:00.000 # no memory\n",
    b"2026-11-28 18:00:00,000 INFO task 1\n",
    b"2026-11-28 18:00:00,000 ERROR attempt failed\n",
    b"Traceback (most recent call last):\n",
    b'  File "x.py", line 1\n',
    b"agents.GitFailed: no\n",
    b"2026-11-28 18:00:01,000 INFO task 2\n",
    b"  a line below a good one\n",
]


def test_problems_of_every_part_are_found_with_their_tracebacks():
    assert [LINES.index(line) for line in logview.problems(LINES)] == [1, 2, 5, 7, 10, 12, 13, 14, 15]


def test_the_last_problems_are_shown_and_cut(state, capsys):
    for name in ("vcs", "nats"):
        (state.logs / f"{name}.log").write_bytes(b"".join(LINES) + b"ERROR " + b"x" * 5000 + b"\n")
    logview.show_problems(log_files(state, None), 2)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].strip() for line in shown] == ["nats", "nats", "vcs", "vcs"]
    assert all(len(line) < 700 for line in shown)
