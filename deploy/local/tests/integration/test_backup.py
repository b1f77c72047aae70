"""What a backup holds comes back, also on a machine that has nothing, and a wrong file is refused untouched."""

import io
import os
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import pytest

from omoios_local import backup
from omoios_local.archive import BackupError, extract, unpack
from omoios_local.client import StackClient
from omoios_local.embedded.process import scratch_directory
from omoios_local.ports import SERVICES
from omoios_local.state import State

NEEDED = ["databases", "nats"]


@pytest.fixture(scope="module")
def machine(free_offset):
    """A running stack with one row and one file per service, and its backup."""
    with scratch_directory("omoios-test-") as directory:
        client = StackClient(State(directory / "state"), free_offset())
        client.up(only=NEEDED)
        stack = client.stack()
        for name in SERVICES:
            sql = f"CREATE TABLE kept AS SELECT '{name}' AS owner; ALTER TABLE kept OWNER TO {name}"
            stack.postgres.execute(sql, name)
            client.state.data(name).mkdir(parents=True, exist_ok=True)
            (client.state.data(name) / "file").write_text(name)
        file = backup.backup(client, directory / "saved.tar")
        yield SimpleNamespace(client=client, stack=stack, file=file, directory=directory)
        client.down()


def test_backup_is_private_and_complete(machine):
    assert machine.file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(machine.file) as archive:
        names = set(archive.getnames())
    assert {"manifest.json", "envelope-key", *(f"databases/{name}.dump" for name in SERVICES)} <= names
    assert {f"data/{name}/file" for name in SERVICES} <= names


def test_key_can_be_left_out_and_a_folder_gets_a_named_file(machine):
    file = backup.backup(machine.client, machine.directory, with_key=False)
    assert file.parent == machine.directory
    with tarfile.open(file) as archive:
        assert "envelope-key" not in archive.getnames()


WRITER = """
import asyncio, sys
import asyncpg
async def main():
    first, second = [await asyncpg.connect(url, ssl=False) for url in sys.argv[1:]]
    number = 0
    while True:
        number += 1
        await first.execute("INSERT INTO steps VALUES ($1)", number)
        await second.execute("INSERT INTO steps VALUES ($1)", number)
asyncio.run(main())
"""


def test_all_snapshots_are_of_one_moment(machine, monkeypatch):
    """A service writes to one database, then to the other: no dump has the second row without the first.

    The snapshot of the database written second is taken last and late: only holding the service still makes them agree.
    """
    export = backup.export_snapshot

    def export_slowly(session):
        time.sleep(0.05)
        return export(session)

    monkeypatch.setattr(backup, "export_snapshot", export_slowly)
    postgres = machine.stack.postgres
    first, second = "billing", "vcs"
    for name in (first, second):
        postgres.execute("CREATE TABLE steps (n int)", name)
    urls = [postgres.superuser_url(name) for name in (first, second)]
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *urls])
    monkeypatch.setattr(StackClient, "status", lambda _: [{"part": "billing", "pid": writer.pid}])
    try:
        for _ in range(5):
            time.sleep(0.1)
            with backup.snapshots(machine.client, machine.stack) as ids:
                begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT"
                counts = [
                    int(postgres.execute(f"{begin} '{ids[name]}'; SELECT count(*) FROM steps; COMMIT", name))
                    for name in (first, second)
                ]
            assert 0 <= counts[0] - counts[1] <= 1
        assert counts[0] > 10
    finally:
        writer.kill()
        writer.wait()
    assert sorted(ids) == sorted(SERVICES)


def test_restore_puts_everything_back(machine):
    client, postgres = machine.client, machine.stack.postgres
    (client.state.directory / "nats" / "data").mkdir(exist_ok=True)
    (client.state.directory / "nats" / "data" / "old").touch()
    for name in SERVICES:
        postgres.execute("DROP TABLE kept", name)
        (client.state.data(name) / "file").write_text("changed")
    assert backup.restore(client, machine.file) == list(SERVICES)
    assert client.status() == []
    assert not (client.state.directory / "nats" / "data" / "old").exists()
    client.up(only=NEEDED)
    for name in SERVICES:
        assert postgres.execute("SELECT owner FROM kept", name) == name
        assert postgres.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'kept'", name) == name
        assert (client.state.data(name) / "file").read_text() == name


def test_restore_of_one_service_leaves_the_others(machine):
    client, postgres = machine.client, machine.stack.postgres
    client.up(only=NEEDED)
    for name in ("workflow", "billing"):
        postgres.execute("UPDATE kept SET owner = 'changed'", name)
    assert backup.restore(client, machine.file, "workflow") == ["workflow"]
    client.up(only=NEEDED)
    assert postgres.execute("SELECT owner FROM kept", "workflow") == "workflow"
    assert postgres.execute("SELECT owner FROM kept", "billing") == "changed"


def test_restore_on_an_empty_machine_brings_the_key(machine, free_offset):
    key = machine.client.stack().credentials.envelope_file.read_text()
    with scratch_directory("omoios-test-") as directory:
        other = StackClient(State(directory / "state"), free_offset())
        backup.restore(other, machine.file)
        assert other.stack().credentials.envelope_file.read_text() == key
        other.up(only=NEEDED)
        assert other.stack().postgres.execute("SELECT owner FROM kept", "vcs") == "vcs"
        (other.state.secrets / "envelope-key").write_text("another")
        with pytest.raises(BackupError, match="another envelope key"):
            backup.restore(other, machine.file, "vcs")
        assert other.stack().postgres.execute("SELECT owner FROM kept", "vcs") == "vcs"
        other.down()


@pytest.mark.parametrize("content", [b"not a tar file", b""])
def test_other_files_are_refused_before_anything_changes(machine, tmp_path, content):
    wrong = tmp_path / "wrong.tar"
    wrong.write_bytes(content)
    with pytest.raises(BackupError, match="is not a backup"):
        backup.restore(machine.client, wrong)
    with pytest.raises(BackupError, match="unknown service ghost"):
        backup.restore(machine.client, machine.file, "ghost")


def entry(name, kind=tarfile.REGTYPE, target=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../outside")],
        [entry("/tmp/omoios-test-outside")],
        [entry("link", tarfile.SYMTYPE, "..")],
        [entry("link", tarfile.LNKTYPE, "../other")],
        [entry("a", tarfile.SYMTYPE, "b"), entry("a")],
        [entry("pipe", tarfile.FIFOTYPE)],
    ],
    ids=["parent", "absolute", "symbolic", "hard", "through", "pipe"],
)
def test_entries_that_lead_out_are_refused(tmp_path, entries):
    file, folder = tmp_path / "saved.tar", tmp_path / "content"
    folder.mkdir()
    with tarfile.open(file, "w") as archive:
        for one in entries:
            archive.addfile(one)
    with pytest.raises(BackupError, match="is not a backup"):
        unpack(file, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"saved.tar", "content"}


def test_links_inside_a_backup_are_kept(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "content"
    (source / "sub").mkdir(parents=True)
    folder.mkdir()
    (source / "manifest.json").write_text('{"format": 1}')
    (source / "sub" / "hard").hardlink_to(source / "manifest.json")
    (source / "sub" / "soft").symlink_to("../manifest.json")
    with tarfile.open(tmp_path / "saved.tar", "w") as archive:
        for path in ("manifest.json", "sub"):
            archive.add(source / path, path)
    assert unpack(tmp_path / "saved.tar", folder) == {"format": 1}
    assert (folder / "sub" / "hard").read_text() == (folder / "sub" / "soft").read_text() == '{"format": 1}'


COMMITTER = """
cd "$1"
tree=$(git rev-parse 'main^{tree}')
while :; do
    head=$(git commit-tree "$tree" -p main -m more)
    git update-ref refs/heads/main "$head"
    : > objects/tmp_obj_vanishing && rm objects/tmp_obj_vanishing
done
"""


def test_a_repository_that_is_worked_in_is_whole_in_the_backup(tmp_path):
    git = ["git", "-c", "safe.directory=*"]
    who = {"GIT_CONFIG_COUNT": "2"} | {
        f"GIT_CONFIG_{what}_{number}": text
        for number, pair in enumerate([("user.name", "Ada"), ("user.email", "ada@example.org")])
        for what, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    data = tmp_path / "data"
    bare = data / "mirrors" / "project.git"
    subprocess.run([*git, "init", "--quiet", "--bare", "--initial-branch=main", bare], check=True)
    tree = subprocess.check_output([*git, "--git-dir", bare, "mktree"], input="", text=True).strip()
    first = subprocess.check_output(
        [*git, "--git-dir", bare, "commit-tree", tree, "-m", "first"], text=True, env=os.environ | who
    ).strip()
    subprocess.run([*git, "--git-dir", bare, "update-ref", "refs/heads/main", first], check=True)
    (bare / "refs" / "heads" / "main.lock.lock").touch()
    committer = subprocess.Popen(["bash", "-c", COMMITTER, "-", bare], env=os.environ | who)
    heads = set()
    try:
        for number in range(12):
            with backup.whole(tmp_path / f"{number}.tar") as archive:
                backup.add_files(archive, data, "data/vcs")
            saved = tmp_path / f"saved-{number}"
            saved.mkdir()
            with tarfile.open(tmp_path / f"{number}.tar") as archive:
                extract(archive, saved)
            put = saved / "data" / "vcs" / "mirrors" / "project.git"
            checked = subprocess.run([*git, "--git-dir", put, "fsck", "--full"], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stderr
            heads.add(subprocess.check_output([*git, "--git-dir", put, "rev-parse", "main"]))
            assert not list(put.rglob("*.lock"))
    finally:
        committer.kill()
        committer.wait()
    assert len(heads) > 1, "nothing was committed meanwhile"


def test_what_vanishes_takes_nothing_along(tmp_path, monkeypatch):
    """A link and a file go away after the folder was listed; what is listed after them is saved."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a-link").symlink_to("nowhere")
    for name in ("b-file", "c-kept"):
        (data / name).write_text(name)

    def vanished(listed, key):
        # The listing is read lazily: first all of it, then they go.
        entries = sorted(listed, key=key)
        (data / "a-link").unlink()
        (data / "b-file").unlink()
        return entries

    monkeypatch.setattr(backup, "sorted", vanished, raising=False)
    with backup.whole(tmp_path / "saved.tar") as archive:
        backup.add_files(archive, data, "data")
    with tarfile.open(tmp_path / "saved.tar") as archive:
        assert archive.getnames() == ["data", "data/c-kept"]


def test_a_backup_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError, match="disk"), backup.whole(tmp_path / "saved.tar") as archive:
        backup.add_text(archive, "manifest.json", "{}")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_dump_is_refused_before_anything_changes(machine, tmp_path):
    machine.client.up(only=NEEDED)
    damaged = tmp_path / "damaged.tar"
    with tarfile.open(machine.file) as whole, tarfile.open(damaged, "w") as archive:
        for member in whole:
            if member.isfile():
                content = whole.extractfile(member).read()
                if member.name == "databases/vcs.dump":
                    content = content[: len(content) * 3 // 4]
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                archive.addfile(member)
    with pytest.raises(BackupError, match="backup of vcs"):
        backup.restore(machine.client, damaged)
    assert machine.stack.postgres.execute("SELECT owner FROM kept", "vcs") == "vcs"


def test_backup_of_a_stopped_stack_says_so(machine):
    machine.client.down()
    with pytest.raises(BackupError, match="is the stack running"):
        backup.backup(machine.client, machine.directory / "none.tar")
    assert not (machine.directory / "none.tar").exists()
    machine.client.up(only=NEEDED)
