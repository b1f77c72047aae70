"""The order in which a new envelope key is brought in: nobody ever meets a value that he cannot open."""

from types import SimpleNamespace

import pytest

from omoios_local import envelope_key


class Stack:
    """What the rotation does to a stack, in order: the keys that each restart met, and each sealing anew."""

    def __init__(self, file, running=True):
        self.file, self.running, self.done = file, running, []
        self.state = SimpleNamespace(directory=file.parent)

    def status(self):
        return [{"part": "identity", "pid": 1}] if self.running else []

    def stack(self):
        environments = SimpleNamespace(service=lambda name, instance: {})
        return SimpleNamespace(credentials=SimpleNamespace(envelope_file=self.file), environments=environments)

    def restart(self, part):
        assert part == "identity"
        self.done.append(("restart", self.file.read_text().split()))


@pytest.fixture
def stack(tmp_path, monkeypatch):
    file = tmp_path / "envelope-key"
    file.write_text("old")
    made = Stack(file)
    monkeypatch.setattr(
        envelope_key, "run_module", lambda *_: made.done.append(("reseal", file.read_text().split())) or "done"
    )
    return made


def test_all_know_the_new_key_before_anybody_seals_with_it(stack):
    envelope_key.rotate(stack, forget=False, say=lambda _: None)
    new = stack.file.read_text().split()[0]
    assert new != "old"
    assert stack.done == [("restart", ["old", new]), ("restart", [new, "old"]), ("reseal", [new, "old"])]
    assert stack.file.stat().st_mode & 0o777 == 0o600


def test_what_an_earlier_rotation_left_is_sealed_before_its_key_is_dropped(stack):
    stack.file.write_text("old\nolder\n")
    envelope_key.rotate(stack, forget=True, say=lambda _: None)
    assert stack.done[:2] == [("restart", ["old", "older"]), ("reseal", ["old", "older"])]
    [new] = stack.file.read_text().split()
    assert stack.done[-1] == ("restart", [new])


def test_a_sealing_that_fails_keeps_every_key(stack, monkeypatch):
    def fails(*_):
        raise RuntimeError("a secret cannot be opened")

    monkeypatch.setattr(envelope_key, "run_module", fails)
    with pytest.raises(RuntimeError):
        envelope_key.rotate(stack, forget=True, say=lambda _: None)
    assert "old" in stack.file.read_text().split()


def test_a_stack_that_does_not_run_is_left_alone(stack):
    stack.running = False
    with pytest.raises(RuntimeError, match="make up"):
        envelope_key.rotate(stack, forget=False, say=lambda _: None)
    assert stack.file.read_text() == "old"
