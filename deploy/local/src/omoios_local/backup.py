"""Backup and restore of everything that is truth: the six databases, the services' own files, the envelope key."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from omoios_local.archive import ENVELOPE_KEY, FORMAT, MANIFEST, BackupError, backup_key, refuse_newer, unpack
from omoios_local.client import StackClient
from omoios_local.embedded.process import write_private
from omoios_local.ports import SERVICES
from omoios_local.provision import create_databases
from omoios_local.stack import Stack

# Databases dumped or loaded at once: each keeps one process of PostgreSQL and one of ours busy.
PARALLEL = 3
# The order within a folder; everything else comes between.
GIT_ORDER = {"refs": 0, "objects": 2}


def target_file(target: Path | None) -> Path:
    """The file to write: as given, or `omoios-<UTC time>.tar` in the given or current folder."""
    name = f"omoios-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    if target is None:
        return Path.cwd() / name
    return target / name if target.is_dir() else target


def backup(client: StackClient, target: Path | None, *, with_key: bool = True) -> Path:
    """Write one tar file (0600): a dump of every database as of one moment, `data/` and the envelope key.

    The services are held still for the milliseconds in which the snapshots are taken, so that no database knows of
    an event that another one's dump has not. JetStream and Redis are left out: they are rebuilt from the databases.
    Raises BackupError.
    """
    stack = client.stack()
    file = target_file(target)
    with tempfile.TemporaryDirectory(dir=client.state.directory) as folder:
        dumps = Path(folder)
        with snapshots(client, stack) as ids, ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda name: dump(stack, name, ids[name], dumps / f"{name}.dump"), SERVICES))
        migrations = {
            name: client.state.read(client.state.migrated / f"{name}.json").get("revision") for name in SERVICES
        }
        manifest = {
            "format": FORMAT,
            "made_at": datetime.now(UTC).isoformat(),
            "services": list(SERVICES),
            "revisions": migrations,
            "envelope_key": with_key,
        }
        with whole(file) as archive:
            add_text(archive, MANIFEST, json.dumps(manifest, indent=1))
            if with_key:
                add_text(archive, ENVELOPE_KEY, stack.credentials.envelope_file.read_text())
            for name in SERVICES:
                archive.add(dumps / f"{name}.dump", f"databases/{name}.dump")
            for service in SERVICES:
                add_files(archive, client.state.data(service), f"data/{service}")
    return file


@contextlib.contextmanager
def whole(file: Path) -> Iterator[tarfile.TarFile]:
    """A tar file (0600) that appears under its name when it is complete, and not at all when something failed."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w") as archive:
            yield archive
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def add_files(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    """Add a folder that is being worked in; what vanishes meanwhile was temporary and is left out, as are lock files.

    Of a git repository the refs come first and the objects last: what a ref names is there before the ref is, so no
    commit made meanwhile leaves a ref in the backup without its objects.
    """
    try:
        archive.add(folder, name, recursive=False)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: (GIT_ORDER.get(entry.name, 1), entry.name))
    except FileNotFoundError:
        return
    for entry in entries:
        path, inside = Path(entry.path), f"{name}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            add_files(archive, path, inside)
        elif entry.is_symlink():
            # Only this one: what stands after it in the folder must not be left out with it.
            with contextlib.suppress(FileNotFoundError):
                archive.add(path, inside)
        elif entry.is_file() and path.suffix != ".lock":
            add_file(archive, path, inside)


def add_file(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a regular file as it is when it is opened, whatever replaces it meanwhile."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as content:
        archive.addfile(archive.gettarinfo(arcname=name, fileobj=content), content)


@contextlib.contextmanager
def snapshots(client: StackClient, stack: Stack) -> Iterator[dict[str, str]]:
    """Database → exported snapshot, all taken while no service could run; they last as long as the context."""
    sessions: dict[str, subprocess.Popen[str]] = {}
    frozen = [unit["pid"] for unit in client.status() if unit["part"] in SERVICES and unit.get("pid")]
    try:
        for name in SERVICES:
            sessions[name] = open_session(stack, name)
        try:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            ids = {name: export_snapshot(session) for name, session in sessions.items()}
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        yield ids
    finally:
        for session in sessions.values():
            session.communicate("ROLLBACK;\n")


def open_session(stack: Stack, database: str) -> subprocess.Popen[str]:
    argv = [str(stack.postgres.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database]
    session = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stack.postgres.client_environment(),
    )
    if ask(session, "SELECT 'connected';") != "connected":
        session.communicate()
        raise BackupError(f"database {database} does not answer; is the stack running?")
    return session


def export_snapshot(session: subprocess.Popen[str]) -> str:
    return ask(session, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();")


def ask(session: subprocess.Popen[str], sql: str) -> str:
    if session.stdin is None or session.stdout is None:
        raise BackupError("psql was started without pipes")
    with contextlib.suppress(BrokenPipeError):
        session.stdin.write(sql + "\n")
        session.stdin.flush()
    return session.stdout.readline().strip()


def dump(stack: Stack, database: str, snapshot: str, file: Path) -> None:
    argv = [
        str(stack.postgres.programs / "pg_dump"),
        "--format=custom",
        "--compress=1",
        f"--snapshot={snapshot}",
        f"--file={file}",
        f"--dbname={database}",
    ]
    run_postgres_program(stack, argv, f"dump of {database}")


def restore(client: StackClient, file: Path, only: str | None = None) -> list[str]:
    """Put databases, files and key back as the backup has them and start the stack anew. Returns the services restored.

    The stack is stopped, the databases are made anew and JetStream is emptied: relays that find a younger stream than
    their rows publish the outbox again (eight days), and each consumer skips what its inbox knows.
    Raises BackupError before anything is touched when the file is not a backup, lacks the service, was made by a newer
    version or holds a dump that cannot be read to its end.
    """
    if only is not None and only not in SERVICES:
        raise BackupError(f"unknown service {only}; known are {', '.join(SERVICES)}")
    chosen = [only] if only else list(SERVICES)
    with tempfile.TemporaryDirectory(dir=file.parent if os.access(file.parent, os.W_OK) else None) as folder:
        content = Path(folder)
        manifest = unpack(file, content)
        missing = [name for name in chosen if not (content / "databases" / f"{name}.dump").exists()]
        if missing:
            raise BackupError(f"{file} holds no database of {', '.join(missing)}")
        refuse_newer(manifest, chosen)
        client.state.create()
        stack = client.stack()
        key_file = stack.credentials.envelope_file
        present = key_file.read_text().strip()
        key = backup_key(content, present, whole=only is None) if manifest.get("envelope_key") else present
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda name: read_through(stack, name, content / "databases" / f"{name}.dump"), chosen))
        client.down()
        if key != present:
            # Interrupted anywhere below, the stack can open its own secrets as well as those of the backup.
            write_private(key_file, f"{key}\n{present}\n")
        shutil.rmtree(client.state.directory / "nats", ignore_errors=True)
        client.up(only=["databases"])
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(lambda name: restore_database(stack, name, content / "databases" / f"{name}.dump"), chosen))
        for name in chosen:
            (client.state.migrated / f"{name}.json").unlink(missing_ok=True)
            restore_files(client.state.data(name), content / "data" / name)
        if key != present:
            write_private(key_file, key)
    client.down()
    return chosen


def read_through(stack: Stack, name: str, file: Path) -> None:
    """Read a whole dump without a database. Raises BackupError for a damaged one."""
    argv = [str(stack.postgres.programs / "pg_restore"), "--file=/dev/null", str(file)]
    run_postgres_program(stack, argv, f"reading the backup of {name}")


def restore_database(stack: Stack, name: str, file: Path) -> None:
    stack.postgres.drop_database(name)
    create_databases(stack.root, stack.postgres, stack.credentials, only=name)
    # Extensions exist already and belong to the superuser; everything else becomes the service's own.
    argv = [str(stack.postgres.programs / "pg_restore"), "--exit-on-error", f"--dbname={name}", str(file)]
    run_postgres_program(stack, argv, f"restore of {name}")


def restore_files(target: Path, source: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)


def run_postgres_program(stack: Stack, argv: list[str], what: str) -> None:
    done = subprocess.run(argv, env=stack.postgres.client_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BackupError(f"{what} failed: {done.stderr.strip()}")


def add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))
