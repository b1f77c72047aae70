"""A backup that no version here can read is refused, and an interrupted restore loses no key."""

import base64
import json
import os
import tarfile

import pytest

from omoios_local import backup
from omoios_local.archive import BackupError
from omoios_local.client import StackClient
from omoios_local.control import ControlError
from omoios_local.ports import SERVICES
from omoios_local.state import State


def new_key():
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A stack that must not be touched: whoever ends it fails."""
    client = StackClient(State(tmp_path / "state"), 0)
    client.state.create()
    (client.state.secrets / "envelope-key").write_text(new_key())
    monkeypatch.setattr(backup, "read_through", lambda *_: None)
    monkeypatch.setattr(StackClient, "down", lambda _: pytest.fail("the stack was ended"))
    return client


def saved(tmp_path, manifest, key=None):
    content = tmp_path / "content"
    (content / "databases").mkdir(parents=True)
    for name in SERVICES:
        (content / "databases" / f"{name}.dump").touch()
    (content / "manifest.json").write_text(json.dumps(manifest))
    if key is not None:
        (content / "envelope-key").write_text(key)
    with tarfile.open(tmp_path / "saved.tar", "w") as file:
        for path in sorted(content.iterdir()):
            file.add(path, path.name)
    return tmp_path / "saved.tar"


@pytest.mark.parametrize(
    ("manifest", "key", "told"),
    [
        ({"format": 1, "revisions": {"workflow": "9999"}}, None, "workflow at revision 9999, which this version does"),
        ({"format": 1, "envelope_key": True}, None, "envelope key is missing or damaged"),
        ({"format": 1, "envelope_key": True}, "rubbish", "envelope key is missing or damaged"),
        ({"format": 1, "envelope_key": True}, base64.b64encode(b"short").decode(), "envelope key is missing"),
        ([], None, "is not a backup"),
    ],
    ids=["newer", "no key", "no base64", "short key", "no manifest"],
)
def test_what_no_version_here_can_read_is_refused_before_anything_changes(client, tmp_path, manifest, key, told):
    before = (client.state.secrets / "envelope-key").read_text()
    with pytest.raises(BackupError, match=told):
        backup.restore(client, saved(tmp_path, manifest, key))
    assert (client.state.secrets / "envelope-key").read_text() == before


def test_a_restore_that_fails_on_the_way_leaves_both_keys(client, tmp_path, monkeypatch):
    present, other = (client.state.secrets / "envelope-key").read_text(), new_key()

    def fails(*_, **__):
        raise ControlError("no room on the disk")

    monkeypatch.setattr(StackClient, "down", lambda _: None)
    monkeypatch.setattr(StackClient, "up", fails)
    with pytest.raises(ControlError):
        backup.restore(client, saved(tmp_path, {"format": 1, "envelope_key": True}, other))
    assert (client.state.secrets / "envelope-key").read_text().split() == [other, present]
