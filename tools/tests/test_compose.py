"""The compose file names what is there: a server, a worker and a migration per service, from Dockerfiles that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SERVICES = ("identity", "workflow", "agents", "monitoring", "billing", "vcs")


@pytest.mark.parametrize(("number", "name"), list(enumerate(SERVICES, 1)))
def test_each_service_has_server_worker_and_migration(number: int, name: str) -> None:
    dockerfile = ROOT / COMPOSE[f"{name}-migrate"]["build"]["dockerfile"]
    text = dockerfile.read_text()
    assert dockerfile == ROOT / "services" / name / "Dockerfile"
    assert f'CMD ["python", "-m", "{name}_service.main"]' in text
    assert f"EXPOSE 1810{number} 1820{number}" in text
    assert COMPOSE[f"{name}-worker"]["command"] == ["python", "-m", f"{name}_service.worker"]
    assert COMPOSE[f"{name}-migrate"]["command"] == ["python", "-m", "servicekit.db.migrate", name]
    for part in (name, f"{name}-worker"):
        assert COMPOSE[part]["image"] == f"omoios-{name}"
        assert COMPOSE[part]["depends_on"][f"{name}-migrate"] == {"condition": "service_completed_successfully"}
    assert f'"{name}":"{name}:1820{number}"' in COMPOSE[name]["environment"]["OMOIOS_RPC_TARGETS"]


def test_only_the_gateway_is_reachable_and_only_from_this_machine() -> None:
    published = {name: part["ports"] for name, part in COMPOSE.items() if "ports" in part}
    assert published == {"gateway": ["127.0.0.1:18000:18000"]}


def test_what_images_copy_is_there_for_every_image_that_exists() -> None:
    for dockerfile in [
        ROOT / "gateway" / "edge" / "Dockerfile",
        *ROOT.glob("services/*/Dockerfile"),
        *ROOT.glob("deploy/docker/*"),
    ]:
        for line in dockerfile.read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), f"{dockerfile.relative_to(ROOT)} copies {source}"
