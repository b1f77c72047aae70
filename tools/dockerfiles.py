"""Writes the Dockerfile of each service and of the edge from one pattern, and finds drift.

python -m tools.dockerfiles write
python -m tools.dockerfiles check

Each file is whole in itself: it builds from the repository's root and needs no image of ours made before. The text up
to a service's own sources is the same everywhere, so the builder's cache makes the locked packages once for all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")

PATTERN = """\
# Written by `make dockerfiles` from the pattern in tools/dockerfiles.py; change it there.
#   docker build -t omoios-{name} -f {path} .
{purpose}
FROM python:3.11-slim AS packages
COPY requirements/bootstrap.lock requirements/base.lock /requirements/
RUN python -m venv /bootstrap \\
    && /bootstrap/bin/pip install --no-cache-dir --require-hashes -r /requirements/bootstrap.lock
RUN python -m venv --without-pip /venv \\
    && VIRTUAL_ENV=/venv /bootstrap/bin/uv pip sync --no-cache --require-hashes --compile-bytecode \\
        /requirements/base.lock

FROM packages AS sources
COPY libs/contracts/src libs/servicekit/src /app/src/
COPY deploy/docker/probe.py /app/
{copies}
RUN python -m compileall -q /app

FROM python:3.11-slim
RUN useradd --no-create-home --home-dir /tmp --uid 10001 omoios
{system}COPY --from=packages /venv /venv
COPY --from=sources /app /app
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\
    {environment}
WORKDIR /app
USER 10001:10001
EXPOSE {ports}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \\
    CMD ["python", "-IS", "/app/probe.py", "{http_port}"]
CMD ["python", "-m", "{module}"]
"""

GIT = """\
RUN apt-get update \\
    && apt-get install -y --no-install-recommends ca-certificates git \\
    && rm -rf /var/lib/apt/lists/*
"""


@dataclass(frozen=True)
class Image:
    """What differs between the images."""

    name: str
    path: str
    module: str
    ports: tuple[int, ...]
    purpose: tuple[str, ...]
    copies: tuple[str, ...]
    environment: tuple[str, ...]
    system: str = ""

    def text(self) -> str:
        return PATTERN.format(
            name=self.name,
            path=self.path,
            module=self.module,
            ports=" ".join(map(str, self.ports)),
            http_port=self.ports[0],
            purpose="\n".join(f"# {line}" for line in self.purpose),
            copies="\n".join(f"COPY {line}" for line in self.copies),
            environment=" ".join(self.environment),
            system=self.system,
        )


def _service(number: int, name: str) -> Image:
    return Image(
        name=name,
        path=f"services/{name}/Dockerfile",
        module=f"{name}_service.main",
        ports=(18100 + number, 18200 + number),
        purpose=(
            f"One image runs the server, the worker (`python -m {name}_service.worker`) and the migrations",
            f"(`python -m servicekit.db.migrate {name}`).",
        ),
        copies=(f"services/{name}/src /app/src/", f"services/{name}/migrations /app/migrations"),
        environment=("OMOIOS_MIGRATIONS=/app/migrations", "OMOIOS_HTTP_HOST=0.0.0.0", "OMOIOS_RPC_HOST=0.0.0.0"),
        system=GIT if name == "vcs" else "",
    )


EDGE = Image(
    name="edge",
    path="gateway/edge/Dockerfile",
    module="gateway_edge.main",
    ports=(18107,),
    purpose=("The same image keeps the gateway's configuration: `python -m gateway_edge.following /config`.",),
    copies=(
        "gateway/edge/src /app/src/",
        "gateway/routes.yaml gateway/openapi.json /app/gateway/",
        "tools/coverage/pending.txt /app/tools/coverage/",
    ),
    environment=("OMOIOS_ROOT=/app", "OMOIOS_HTTP_HOST=0.0.0.0"),
)

IMAGES = (*(_service(number, name) for number, name in enumerate(SERVICES, 1)), EDGE)


def drifted(root: Path = ROOT) -> list[str]:
    """Paths of Dockerfiles that are missing or differ from the pattern."""
    return [
        image.path
        for image in IMAGES
        if not (root / image.path).is_file() or (root / image.path).read_text() != image.text()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "check"))
    if parser.parse_args(argv).action == "write":
        for image in IMAGES:
            (ROOT / image.path).write_text(image.text())
        return 0
    found = drifted()
    for path in found:
        print(f"{path} differs from tools/dockerfiles.py; run `make dockerfiles`")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
