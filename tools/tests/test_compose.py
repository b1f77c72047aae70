"""The container path as far as it can be proven without a container engine.

What the compose file says is held against the schema of the specification, against the Dockerfiles and against the
code: settings, ports, commands, files. The Dockerfiles' own steps run in `test_dockerfiles.py`.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from gateway_edge.settings import Settings as EdgeSettings
from gateway_edge.traefik_config import DEFAULT_PORTS
from omoios_local import compose_secrets
from omoios_local.environment import KEEP_SECRETS_AT_REST
from omoios_local.provision import databases
from servicekit.settings import ServiceSettings
from tools.dockerfiles import IMAGES, SERVICES

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PARTS: dict[str, Any] = COMPOSE["services"]
IMAGE = {f"omoios-{image.name}": image for image in IMAGES}
JOBS = {"volumes", "databases", "topology", *(f"{name}-migrate" for name in SERVICES)}
VARIABLE = re.compile(r"\$\{(\w+)(?::-(.*?))?\}$")
DONE = {"condition": "service_completed_successfully"}
WORKER_PORT = "18009"


@cache
def settings_of(service: str) -> type[ServiceSettings]:
    if service == "edge":
        return EdgeSettings
    module = importlib.import_module(f"{service}_service.settings")
    found: type[ServiceSettings] = module.Settings
    return found


def resolved(environment: dict[str, str]) -> dict[str, str]:
    """The environment where the operator sets no variable."""
    return {
        name: (found[2] or "") if (found := VARIABLE.fullmatch(value)) else value for name, value in environment.items()
    }


def test_the_file_obeys_the_specification() -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    problems = [str(error.message) for error in jsonschema_rs.Draft201909Validator(schema).iter_errors(COMPOSE)]
    assert not problems
    broken = {"services": {"identity": {"image": "x", "stop_grace_perid": "30s"}}}
    assert not jsonschema_rs.Draft201909Validator(schema).is_valid(broken)


@pytest.mark.parametrize(("number", "name"), list(enumerate(SERVICES, 1)))
def test_each_service_has_server_worker_and_migration(number: int, name: str) -> None:
    assert PARTS[name]["build"] == {"context": ".", "dockerfile": f"services/{name}/Dockerfile"}
    assert PARTS[f"{name}-worker"]["command"] == ["python", "-m", f"{name}_service.worker"]
    assert PARTS[f"{name}-migrate"]["command"] == ["python", "-m", "servicekit.db.migrate", name]
    for part in (name, f"{name}-worker"):
        assert PARTS[part]["image"] == f"omoios-{name}"
        needs = PARTS[part]["depends_on"]
        assert needs[f"{name}-migrate"] == needs["topology"] == DONE
        assert needs["redis"] == {"condition": "service_healthy"}
        targets = json.loads(PARTS[part]["environment"]["OMOIOS_RPC_TARGETS"])
        assert targets[name] == f"dns:///{name}:1820{number}"
        assert set(targets) == set(SERVICES)
    assert json.loads(PARTS["edge"]["environment"]["OMOIOS_SERVICE_URLS"])[name] == f"http://{name}:1810{number}"


def test_what_runs_of_ours_has_an_image_that_one_part_builds() -> None:
    ours = {part["image"] for part in PARTS.values() if part["image"].startswith("omoios-")}
    builders = [part for part in PARTS.values() if "build" in part]
    assert ours == set(IMAGE) == {part["image"] for part in builders}
    assert len(builders) == len(IMAGE)
    for part in builders:
        assert part["build"]["dockerfile"] == IMAGE[part["image"]].path
    for name, part in PARTS.items():
        if part["image"] in ours and "build" not in part:
            assert part["pull_policy"] == "never", name


def test_no_image_and_no_file_names_a_registry() -> None:
    for part in PARTS.values():
        assert re.fullmatch(r"(?:[a-z0-9-]+/)?[a-z0-9-]+(?::[\w.-]+)?", part["image"]), part["image"]


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_container_can_do_as_little_as_possible(name: str) -> None:
    part = PARTS[name]
    assert part["read_only"] is True
    assert part["init"] is True
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert all(":size=" in mount for mount in part["tmpfs"])
    assert part["mem_limit"]
    assert part["cpus"]
    assert part["pids_limit"]
    assert "privileged" not in part
    assert not any("docker.sock" in str(volume) for volume in part.get("volumes", []))
    if name == "volumes":
        assert (part["user"], part["cap_add"], part["network_mode"]) == ("0:0", ["CHOWN"], "none")
    else:
        assert "cap_add" not in part
        assert int(part["user"].partition(":")[0]) > 0


@pytest.mark.parametrize("name", sorted(PARTS))
def test_what_stays_is_restarted_and_checked_and_a_job_is_neither(name: str) -> None:
    part = PARTS[name]
    if name in JOBS:
        assert part["restart"] == "no"
        assert part["healthcheck"] == {"disable": True} or not part["image"].startswith("omoios-")
        return
    assert part["restart"] == "unless-stopped"
    if "healthcheck" not in part:
        # Then it is the image's own check, of the server that the image runs by default.
        assert "HEALTHCHECK" in (ROOT / IMAGE[part["image"]].path).read_text()
        assert "command" not in part
    else:
        assert part["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_stopping_takes_less_time_than_is_granted() -> None:
    for name in (*SERVICES, "edge"):
        environment = {key: value for key, value in PARTS[name]["environment"].items() if key.endswith("DELAY_S")}
        drain = (
            float(environment["OMOIOS_SHUTDOWN_DELAY_S"]) + settings_of(name).model_fields["shutdown_grace_s"].default
        )
        for part in (name, f"{name}-worker") if name in SERVICES else (name,):
            assert int(PARTS[part]["stop_grace_period"].removesuffix("s")) >= 2 * drain


def test_only_the_gateway_is_reachable_and_only_from_this_machine() -> None:
    published = {name: part["ports"] for name, part in PARTS.items() if "ports" in part}
    assert published == {"gateway": ["${OMOIOS_LISTEN:-127.0.0.1:18000}:18000"]}
    assert DEFAULT_PORTS["gateway"] == 18000
    assert [name for name, part in PARTS.items() if "public" in part.get("networks", [])] == ["gateway"]
    for network in ("inside", "data"):
        assert COMPOSE["networks"][network] == {"internal": True}
    for name in ("postgres", "nats", "redis"):
        assert PARTS[name]["networks"] == ["data"]
    assert "data" not in PARTS["gateway"]["networks"] + PARTS["edge"]["networks"]


def test_every_reference_leads_somewhere() -> None:
    for name, part in PARTS.items():
        assert set(part.get("depends_on", {})) <= set(PARTS), name
        assert set(part.get("networks", [])) <= set(COMPOSE["networks"]), name
        for secret in part.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"], name
        for volume in part.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], name
        for dependency, how in part.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if dependency in JOBS else "service_healthy"
            assert how == {"condition": wanted}, f"{name} → {dependency}"
    used = {volume.split(":")[0] for part in PARTS.values() for volume in part.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used
    assert (
        PARTS["vcs"]["volumes"]
        == PARTS["vcs-worker"]["volumes"]
        == [f"vcs:{PARTS['vcs']['environment']['OMOIOS_DATA_DIR']}"]
    )


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part["image"] in IMAGE])
def test_every_command_and_every_variable_is_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = PARTS[name]
    match part.get("command"):
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case None:
            assert name in (*SERVICES, "edge")
        case command:
            assert command[0] == "chown"
    service = IMAGE[part["image"]].name
    kind = settings_of(service)
    given = resolved(part.get("environment", {}))
    for variable in given:
        field = variable.removeprefix("OMOIOS_").removesuffix("_FILE").lower()
        assert field in kind.model_fields, variable
    monkeypatch.setattr("os.environ", {key: value for key, value in given.items() if not key.endswith("_FILE")})
    kind()


@pytest.mark.parametrize("name", [*SERVICES, *(f"{name}-worker" for name in SERVICES)])
def test_ports_and_probes_agree(name: str) -> None:
    service = name.removesuffix("-worker")
    image = IMAGE[f"omoios-{service}"]
    kind = settings_of(service)
    assert image.ports == (kind.model_fields["http_port"].default, kind.model_fields["rpc_port"].default)
    assert DEFAULT_PORTS[service] == image.ports[0]
    if name.endswith("-worker"):
        assert PARTS[name]["environment"]["OMOIOS_WORKER_HTTP_PORT"] == WORKER_PORT
        assert PARTS[name]["healthcheck"]["test"] == ["CMD", "python", "-IS", "/app/probe.py", WORKER_PORT]


def test_a_part_is_given_its_own_secrets_and_no_other() -> None:
    mounted = {
        name: {secret if isinstance(secret, str) else secret["source"] for secret in part.get("secrets", [])}
        for name, part in PARTS.items()
    }
    for name in SERVICES:
        own = {f"{name}.{purpose}" for purpose in ("database-url", "redis-url", "nats-password", "service-secret")}
        own |= {"envelope-key"} if name in KEEP_SECRETS_AT_REST else set()
        own |= {"identity.service-secrets"} if name == "identity" else set()
        assert mounted[name] == mounted[f"{name}-worker"] == own
        assert mounted[f"{name}-migrate"] == {f"{name}.database-url"}
        targets = {secret["target"] for secret in PARTS[name]["secrets"] if not isinstance(secret, str)}
        files = {value for key, value in PARTS[name]["environment"].items() if key.endswith("_FILE")}
        assert files == {f"/run/secrets/{target}" for target in targets | (own & {"envelope-key"})}
    assert mounted["gateway"] == mounted["gateway-config"] == mounted["edge"] == set()
    assert mounted["databases"] == {"postgres-password", *(f"{name}.database-password" for name in SERVICES)}
    for part in PARTS.values():
        for key, value in (part.get("environment") or {}).items():
            assert key.endswith("_FILE") or "PASSWORD" not in key or value.startswith("${"), key


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    names = compose_secrets.write(directory)
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./{compose_secrets.DIRECTORY}/{name}"}
        assert name in names
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o444}
    before = {path.name: path.read_text() for path in directory.iterdir()}
    values = [value for name, value in before.items() if name.endswith(("-password", "-secret"))]
    assert len(set(values)) == len(values) > 20
    compose_secrets.write(directory)
    assert {path.name: path.read_text() for path in directory.iterdir()} == before
    assert '"sync_interval": "always"' in before["nats.conf"]
    for name in SERVICES:
        url = f"postgresql://{name}:{before[f'{name}.database-password']}@postgres:5432/{name}"
        assert before[f"{name}.database-url"] == url
        assert f"user {name} on #" in before["redis.acl"]
    for ignored in (".gitignore", ".dockerignore"):
        assert str(compose_secrets.DIRECTORY) in (ROOT / ignored).read_text()


def test_the_databases_job_knows_every_database_and_extension() -> None:
    specs = databases(ROOT)
    assert PARTS["databases"]["command"] == ["bash", "/sql/create-databases.sh", *(spec.name for spec in specs)]
    script = (ROOT / "deploy/postgres/create-databases.sh").read_text()
    made = re.findall(r"CREATE EXTENSION IF NOT EXISTS (\w+)' (\w+)", script)
    assert made == [(extension, spec.name) for spec in specs for extension in spec.extensions]
