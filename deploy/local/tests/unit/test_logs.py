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
