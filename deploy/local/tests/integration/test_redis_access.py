"""A service's Redis user reaches its own keys only; the kit's limiter works through it."""

import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from omoios_local.embedded.process import free_port
from omoios_local.embedded.redis import EmbeddedRedis, RedisUser
from servicekit.redis import RedisClient
from servicekit.settings import ServiceSettings

IDENTITY, BILLING = RedisUser("identity", "identity-secret"), RedisUser("billing", "billing-secret")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), free_port(), users=[IDENTITY, BILLING])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def identity(server):
    with redis.Redis.from_url(server.url(IDENTITY)) as client:
        yield client


def test_own_keys_and_channels(identity):
    assert identity.set("identity:session", "1", ex=5)
    assert identity.get("identity:session") == b"1"
    assert identity.publish("identity:news", "x") == 0
    assert identity.eval("return redis.call('INCR', KEYS[1])", 1, "identity:counter") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "billing:balance"),
        ("SET", "unprefixed", "1"),
        ("PUBLISH", "billing:news", "x"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "billing:balance"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("KEYS", "*"),
        ("DEBUG", "SLEEP", "0"),
        ("SHUTDOWN",),
    ],
)
def test_everything_else_is_refused(identity, command):
    with pytest.raises(NoPermissionError):
        identity.execute_command(*command)


def test_no_login_and_wrong_password(server):
    for url in (server.url(), server.url(RedisUser("identity", "wrong"))):
        with redis.Redis.from_url(url) as client, pytest.raises(AuthenticationError):
            client.ping()


async def test_the_kits_limiter_works_with_the_restricted_user(server):
    settings = ServiceSettings(redis_url=server.url(IDENTITY))
    client = RedisClient(settings)
    try:
        verdicts = [await client.limit("identity:rl:auth.login:x", requests=2, per_s=60) for _ in range(3)]
    finally:
        await client.close()
    assert [verdict.allowed for verdict in verdicts] == [True, True, False]


def test_nothing_is_written_to_disk(server, identity):
    identity.set("identity:x", "1")
    kept = {path.name for path in server.directory.iterdir()}
    assert kept == {"redis.conf", "users.acl", "redis.log"}
    for name in ("redis.conf", "users.acl"):
        assert (server.directory / name).stat().st_mode & 0o077 == 0
    assert "identity-secret" not in (server.directory / "users.acl").read_text()
