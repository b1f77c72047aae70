"""Six roles and databases that cannot see each other; pgvector; recovery; refusal of unreachable folders."""

import os
import signal

import asyncpg
import pytest

from omoios_local.credentials import Credentials
from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.embedded.process import free_port, scratch_directory
from omoios_local.ports import SERVICES
from omoios_local.provision import create_databases, databases
from omoios_local.state import repository_root

ROOT = repository_root()


@pytest.fixture(scope="module")
def server():
    with scratch_directory("omoios-test-") as directory:
        server = EmbeddedPostgres(directory / "postgres", free_port(), fsync=False)
        server.start()
        credentials = Credentials(directory / "secrets")
        create_databases(ROOT, server, credentials)
        create_databases(ROOT, server, credentials)
        server.credentials = credentials
        yield server
        server.stop()


def url(server, role, database=None):
    return server.url(role, server.credentials.database(role), database or role)


async def connect(address):
    return await asyncpg.connect(address, timeout=5, ssl=False)


def test_every_service_has_its_entry():
    assert [spec.name for spec in databases(ROOT)] == list(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_role_owns_its_database_and_may_create_in_it(server, service):
    connection = await connect(url(server, service))
    try:
        await connection.execute("CREATE TABLE mine (id int); DROP TABLE mine")
        rights = await connection.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls "
            "FROM pg_roles WHERE rolname = $1",
            service,
        )
        assert not any(rights)
    finally:
        await connection.close()


async def test_no_role_connects_to_another_database(server):
    for role in SERVICES:
        for database in {*SERVICES, "postgres"} - {role, "postgres"}:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connect(url(server, role, database))


async def test_passwords_are_required(server):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(server.url("identity", "wrong", "identity"))
    assert server.execute("SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword !~ '^SCRAM-SHA-256'") == "0"


async def test_agents_can_search_by_vector(server):
    connection = await connect(url(server, "agents"))
    try:
        assert await connection.fetchval("SELECT '[1,0]'::vector <-> '[0,0]'::vector") == 1.0
    finally:
        await connection.close()


def test_listens_on_loopback_only(server):
    assert server.execute("SHOW listen_addresses") == "127.0.0.1"
    assert server.execute("SHOW unix_socket_directories") == ""
    assert int(server.execute("SHOW max_connections")) >= 300


def test_a_changed_password_replaces_the_old_one(server):
    path = server.credentials.directory / "vcs.database-password"
    path.write_text("it's \\ another")
    create_databases(ROOT, server, server.credentials, only="vcs")
    done = server.execute("SELECT rolname FROM pg_authid WHERE rolname = 'vcs' AND rolpassword IS NOT NULL")
    assert done == "vcs"


def test_databases_are_copied_from_a_template(server):
    server.execute("CREATE TABLE seen (id int); INSERT INTO seen VALUES (7)", "billing")
    server.create_database("copy", "billing", template="billing", extensions=())
    assert server.execute("SELECT id FROM seen", "copy") == "7"
    server.drop_database("copy")
    server.drop_database("copy")
    server.execute("DROP TABLE seen", "billing")


def test_data_survive_kill_9_and_a_stale_lock_of_a_living_process(scratch):
    server = EmbeddedPostgres(scratch / "postgres", free_port(), fsync=False)
    server.start()
    try:
        server.execute("CREATE TABLE kept AS SELECT 1 AS id")
        os.kill(server.pid, signal.SIGKILL)
        server.kill()
        lock = server.data / "postmaster.pid"
        lines = lock.read_text().splitlines()
        lock.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
        server.start()
        assert server.execute("SELECT id FROM kept") == "1"
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_is_told_which_folder_is_closed(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "postgres", free_port())
    with pytest.raises(PermissionError, match=r"cannot pass through .*OMOIOS_STATE_DIR"):
        server.prepare()
