"""`python -m omoios_local.compose_secrets [DIRECTORY]`: the secrets of the container path, a file per part and purpose.

The directory is 0700, so nobody but its owner reaches the files. The files themselves are 0444, because Compose mounts
each into a container as it is, where an unprivileged user of another number must read it. What exists is kept; files
that follow from others (addresses, NATS's and Redis's users) are written anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from omoios_local.credentials import Credentials
from omoios_local.embedded.nats import NatsUser, server_config, service_user
from omoios_local.embedded.process import secret_file, write_private
from omoios_local.embedded.redis import RedisUser, acl
from omoios_local.ports import SERVICES

DIRECTORY = Path(".compose-secrets")
UNLIMITED_NATS_USERS = ("topology", "operator")


def write(directory: Path) -> list[str]:
    """Makes what is missing below ``directory``; the names of all its files."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    credentials = Credentials(directory)
    secret_file(directory / "postgres-password")
    for name in SERVICES:
        credentials.service(name)
        database, redis = (quote(text, safe="") for text in (credentials.database(name), credentials.redis(name)))
        credentials.database_url_file(name, f"postgresql://{name}:{database}@postgres:5432/{name}")
        credentials.redis_url_file(name, f"redis://{name}:{redis}@redis:6379/0")
    _ = credentials.envelope_file
    write_private(directory / "identity.service-secrets", json.dumps(credentials.service_digests()))
    users = [service_user(name, credentials.nats(name), SERVICES) for name in SERVICES]
    users += [NatsUser(name, credentials.nats(name)) for name in UNLIMITED_NATS_USERS]
    config = server_config(store="/data", listen="0.0.0.0:4222", http="127.0.0.1:8222", users=users)
    write_private(directory / "nats.conf", config)
    write_private(directory / "redis.acl", acl([RedisUser(name, credentials.redis(name)) for name in SERVICES]))
    files = sorted(path for path in directory.iterdir() if path.is_file())
    for path in files:
        path.chmod(0o444)
    return [path.name for path in files]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    directory = parser.parse_args(argv).directory
    print(f"{len(write(directory))} secrets in {directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
