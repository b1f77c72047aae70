"""PostgreSQL 18 with pgvector, reachable over TCP on 127.0.0.1 with passwords only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from omoios_local.embedded.postgres_programs import installation
from omoios_local.embedded.process import (
    LOOPBACK,
    Command,
    EmbeddedPart,
    base_environment,
    closed_parent,
    exchange,
    secret_file,
    unprivileged_user,
    write_private,
)

SUPERUSER = "postgres"

SETTINGS = """\
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''
max_connections = {max_connections}
password_encryption = 'scram-sha-256'
shared_preload_libraries = ''
shared_buffers = '{shared_buffers}'
max_wal_size = '2GB'
checkpoint_timeout = '15min'
wal_compression = on
fsync = {fsync}
full_page_writes = {fsync}
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
log_min_duration_statement = 1000
log_lock_waits = on
"""

HBA = """\
host all all 127.0.0.1/32 scram-sha-256
"""


class EmbeddedPostgres(EmbeddedPart):
    """One PostgreSQL cluster below `directory`.

    `fsync=False` belongs to tests: it survives a killed process but not a lost machine.
    Started by root, the server runs as another user
    and `directory` must lie where that user can pass through (see `process.scratch_directory`).
    """

    name = "postgres"

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        fsync: bool = True,
        max_connections: int = 400,
        shared_buffers: str = "256MB",
    ) -> None:
        super().__init__(directory, port)
        self.fsync = fsync
        self.max_connections = max_connections
        self.shared_buffers = shared_buffers
        self._user = unprivileged_user()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def programs(self) -> Path:
        """Folder of initdb, postgres, psql, pg_dump and pg_restore."""
        return installation(self._user) / "bin"

    def prepare(self) -> None:
        """initdb on the first call; configuration, ownership and a stale lock file on every call.

        Raises PermissionError naming the folder when root placed the data where the server's user cannot reach it.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        uid, gid = self._user or (None, None)
        if uid is not None and gid is not None:
            self.directory.chmod(0o711)
            closed = closed_parent(self.data, uid, gid)
            if closed is not None:
                raise PermissionError(
                    f"PostgreSQL refuses root and runs as uid {uid}, which cannot pass through {closed}; "
                    "choose a data directory outside of it (OMOIOS_STATE_DIR)"
                )
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        values = {
            "host": LOOPBACK,
            "port": self.port,
            "max_connections": self.max_connections,
            "shared_buffers": self.shared_buffers,
            "fsync": "on" if self.fsync else "off",
        }
        write_private(self.data / "postgresql.conf", SETTINGS.format(**values), uid, gid)
        write_private(self.data / "pg_hba.conf", HBA, uid, gid)
        self._drop_stale_lock()

    def _initdb(self) -> None:
        """Make the cluster in a folder beside its final place, so that an interrupted run leaves no half of one."""
        building = self.directory / "data.new"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        password = self.directory / "password.new"
        uid, gid = self._user or (None, None)
        write_private(password, self.superuser_password, uid, gid)
        if uid is not None and gid is not None:
            os.chown(building, uid, gid)
        argv = [
            str(self.programs / "initdb"),
            f"--pgdata={building}",
            f"--username={SUPERUSER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]
        if not self.fsync:
            argv.append("--no-sync")
        command = Command(tuple(argv), base_environment(), self.directory, uid, gid)
        done = subprocess.run(
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            capture_output=True,
            text=True,
            check=False,
            user=uid,
            group=gid,
            extra_groups=command.extra_groups,
        )
        password.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        building.rename(self.data)

    def _drop_stale_lock(self) -> None:
        """Remove postmaster.pid when its process is gone or is another program.

        PostgreSQL refuses to start while any process has the recorded id, which a restarted container easily hands out.
        """
        lock = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(lock.read_text().split()[0])
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                arguments = []
            if str(self.data).encode() not in arguments and Path("/proc/self").exists():
                lock.unlink()

    def command(self) -> Command:
        uid, gid = self._user or (None, None)
        argv = (str(self.programs / "postgres"), "-D", str(self.data))
        # SIGINT is PostgreSQL's fast shutdown: clients are disconnected, a checkpoint is written.
        return Command(argv, base_environment(), self.directory, uid, gid, signal.SIGINT)

    def ready(self) -> bool:
        """True when the server asks a client for its password; while it starts or recovers it answers an error."""
        body = struct.pack("!I", 196608) + b"user\0readiness\0database\0postgres\0\0"
        answer = exchange(self.port, struct.pack("!I", len(body) + 4) + body)
        return answer[:1] == b"R"

    @property
    def superuser_password(self) -> str:
        return secret_file(self.directory / "superuser.secret")

    def superuser_url(self, database: str = "postgres") -> str:
        """`postgresql://` address with the superuser's password, for administration and tests."""
        return self.url(SUPERUSER, self.superuser_password, database)

    def url(self, role: str, password: str, database: str) -> str:
        return f"postgresql://{quote(role, safe='')}:{quote(password, safe='')}@{LOOPBACK}:{self.port}/{database}"

    def client_environment(self) -> dict[str, str]:
        """Environment for psql, pg_dump and pg_restore as superuser; the password never appears in an argument."""
        return base_environment() | {
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": self.superuser_password,
            "PGCONNECT_TIMEOUT": "5",
        }

    def execute(self, sql: str, database: str = "postgres", variables: Mapping[str, str] | None = None) -> str:
        """Run a psql script as superuser and return its unaligned output. Raises RuntimeError with psql's message.

        `variables` become psql variables (`:"name"`, `:'name'`), passed on standard input because they hold secrets.
        """
        lines = [f"\\set {name} {_psql_quoted(value)}" for name, value in (variables or {}).items()]
        done = subprocess.run(
            [str(self.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database],
            input="\n".join([*lines, sql]),
            env=self.client_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"psql on database {database}: {done.stderr.strip()}")
        return done.stdout.strip()

    def create_role(self, name: str, password: str) -> None:
        """Make or update a login role without any further right."""
        sql = """
            SELECT format('CREATE ROLE %I', :'name')
            WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \\gexec
            ALTER ROLE :"name" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD :'password';
        """
        self.execute(sql, variables={"name": name, "password": password})

    def create_database(
        self, name: str, owner: str = SUPERUSER, *, template: str = "template1", extensions: Iterable[str] = ("vector",)
    ) -> None:
        """Make a database that only its owner may connect to; an existing one is kept.

        `template` names the database to copy (its sessions must be closed).
        """
        variables = {"name": name, "owner": owner, "template": template}
        sql = """
            SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE %I STRATEGY FILE_COPY', :'name', :'owner', :'template')
            WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \\gexec
            REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
        """
        self.execute(sql, variables=variables)
        if extensions:
            self.execute("".join(f'CREATE EXTENSION IF NOT EXISTS "{item}";' for item in extensions), name)

    def drop_database(self, name: str) -> None:
        """Drop a database with its sessions; a missing one is no error."""
        self.execute('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', variables={"name": name})


def _psql_quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
