"""Every program of the stack starts below a folder whose name has a space and letters that are not ASCII."""

import pytest

from omoios_local.embedded.nats import EmbeddedNats, NatsUser
from omoios_local.embedded.process import free_port
from omoios_local.embedded.redis import EmbeddedRedis, RedisUser
from omoios_local.embedded.traefik import EmbeddedTraefik


@pytest.mark.parametrize(
    "make",
    [
        lambda folder, port: EmbeddedRedis(folder, port, users=[RedisUser("vcs", "secret")]),
        lambda folder, port: EmbeddedNats(folder, port, users=[NatsUser("vcs", "secret")]),
        EmbeddedTraefik,
    ],
    ids=["redis", "nats", "traefik"],
)
def test_folder_with_a_space_and_an_umlaut(tmp_path, make):
    part = make(tmp_path / "my w\u00f6rk" / "state", free_port())
    try:
        part.start()
        assert part.ready()
    finally:
        part.stop()
