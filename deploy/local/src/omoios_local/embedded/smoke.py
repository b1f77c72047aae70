"""`python -m omoios_local.embedded.smoke`: start PostgreSQL, NATS, Redis and Traefik on free ports, then stop them."""

from __future__ import annotations

import time

from omoios_local.embedded.nats import EmbeddedNats
from omoios_local.embedded.postgres import EmbeddedPostgres
from omoios_local.embedded.process import EmbeddedPart, free_port, scratch_directory
from omoios_local.embedded.redis import EmbeddedRedis
from omoios_local.embedded.traefik import EmbeddedTraefik


def main() -> None:
    with scratch_directory("omoios-smoke-") as directory:
        postgres = EmbeddedPostgres(directory / "postgres", free_port(), fsync=False)
        parts: list[EmbeddedPart] = [
            postgres,
            EmbeddedNats(directory / "nats", free_port()),
            EmbeddedRedis(directory / "redis", free_port()),
            EmbeddedTraefik(directory / "traefik", free_port()),
        ]
        try:
            for part in parts:
                began = time.perf_counter()
                part.start()
                print(
                    f"{part.name:<9} port {part.port:<6} pid {part.pid:<8} ready in {time.perf_counter() - began:.2f} s"
                )
            postgres.create_role("smoke", "it's\\secret")
            postgres.create_database("smoke", "smoke")
            vector = postgres.execute(
                "SELECT version(), extversion FROM pg_extension WHERE extname = 'vector'", "smoke"
            )
            print(vector)
        finally:
            for part in reversed(parts):
                part.stop()
    print("all four stopped")


if __name__ == "__main__":
    main()
