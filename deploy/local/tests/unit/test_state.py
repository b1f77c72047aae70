"""Where data lie, what may be deleted, and the supervisor's lock."""

from pathlib import Path

import pytest

from omoios_local.state import MARKER, State, StateError, choose_directory

CLONE = Path("/srv/clones/omoios")


def test_named_directory_wins_for_everybody():
    for uid in (0, 1000):
        found = choose_directory(CLONE, 0, {"OMOIOS_STATE_DIR": "/srv/state"}, uid)
        assert found == Path("/srv/state")


def test_ordinary_users_keep_data_in_the_clone():
    assert choose_directory(CLONE, 0, {}, 1000) == CLONE / ".omoios"
    assert choose_directory(CLONE, 1000, {}, 1000) == CLONE / ".omoios" / "shifted-1000"


def test_root_keeps_data_outside_of_the_clone_and_apart_per_clone():
    first = choose_directory(CLONE, 0, {}, 0)
    second = choose_directory(Path("/srv/clones/other"), 0, {}, 0)
    assert first.parent == second.parent == Path("/var/lib/omoios")
    assert first != second
    assert choose_directory(CLONE, 500, {}, 0) not in (first, second)


def test_folders_are_closed_and_marked(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    state.create()
    assert (state.directory / MARKER).exists()
    for folder in (state.secrets, state.logs, state.mail, state.migrated):
        assert folder.stat().st_mode & 0o077 == 0


def test_foreign_directory_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StateError, match="holds other files"):
        State(tmp_path).create()
    with pytest.raises(StateError, match="nothing was deleted"):
        State(tmp_path).delete()
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_delete_removes_known_names_only(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    (state.directory / "notes.txt").write_text("mine")
    state.write(state.stack_file, {"offset": 1})
    state.delete()
    assert [path.name for path in state.directory.iterdir()] == ["notes.txt"]


def test_lock_is_held_by_one_and_let_go(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    assert not state.supervised()
    with state.locked():
        assert state.supervised()
        with pytest.raises(StateError, match="another supervisor"), State(state.directory).locked():
            pytest.fail("two supervisors hold one directory")
    assert not state.supervised()


def test_long_paths_put_the_socket_into_a_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    state = State(tmp_path / ("long" * 30))
    state.create()
    assert len(str(state.socket_path)) < 108 or len(str(tmp_path)) > 60
    assert state.socket_path.parent.stat().st_mode & 0o077 == 0


def test_damaged_file_reads_as_empty(tmp_path):
    state = State(tmp_path)
    (tmp_path / "processes.json").write_text('{"processes": [')
    assert state.read(state.processes_file) == {}
