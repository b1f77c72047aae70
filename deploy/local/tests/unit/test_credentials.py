"""Secrets: private, stable, one per part, and never in an environment as such."""

import base64
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from omoios_local.credentials import Credentials
from omoios_local.embedded.process import secret_file
from omoios_local.environment import Environments, operator_settings
from omoios_local.ports import SERVICES, PortPlan
from omoios_local.state import State


@pytest.fixture
def environments(tmp_path):
    state = State(tmp_path / "state")
    state.create()
    return Environments(
        tmp_path / "clone", state, PortPlan(3000), Credentials(state.secrets), {"OMOIOS_LOG_LEVEL": "DEBUG"}
    )


def test_files_are_readable_by_the_owner_only(environments):
    for name in SERVICES:
        environments.service(name)
    files = list(environments.credentials.directory.iterdir())
    assert len(files) > 6 * 4
    assert environments.credentials.open_files() == []
    files[0].chmod(0o644)
    assert environments.credentials.open_files() == [files[0]]


def test_secrets_differ_and_are_kept(environments):
    credentials = environments.credentials
    made = [make(name) for name in SERVICES for make in (credentials.database, credentials.nats, credentials.service)]
    assert len(set(made)) == 18
    assert min(len(secret) for secret in made) >= 32
    again = Credentials(credentials.directory)
    assert again.database("vcs") == credentials.database("vcs")


def test_one_secret_wins_when_many_ask_at_once(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: secret_file(tmp_path / "secret"), range(64)))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_envelope_key_is_base64_of_32_bytes(environments):
    key = environments.credentials.envelope_file.read_text()
    assert len(base64.b64decode(key, validate=True)) == 32


def test_no_environment_holds_a_secret_or_names_a_file_of_another_part(environments):
    credentials = environments.credentials
    secrets = {
        make(name) for name in SERVICES for make in (credentials.database, credentials.nats, credentials.service)
    }
    for name in SERVICES:
        environment = environments.service(name)
        text = json.dumps(environment)
        assert not any(secret in text for secret in secrets)
        for variable, value in environment.items():
            if variable.startswith("OMOIOS_") and variable.endswith("_FILE") and "ENVELOPE" not in variable:
                assert value.startswith(f"{credentials.directory}/{name}."), variable


def test_envelope_key_goes_to_those_that_keep_secrets_at_rest(environments):
    told = [name for name in SERVICES if "OMOIOS_ENVELOPE_KEY_FILE" in environments.service(name)]
    assert told == ["identity", "vcs"]


def test_identity_gets_digests_of_the_secrets_that_callers_hold(environments):
    digests = json.loads(environments.service("identity")["OMOIOS_SERVICE_SECRETS"])
    for name in SERVICES:
        path = environments.service(name)["OMOIOS_SERVICE_SECRET_FILE"]
        with open(path, "rb") as file:
            assert digests[name] == hashlib.sha256(file.read()).hexdigest()
    assert "OMOIOS_SERVICE_SECRETS" not in environments.service("vcs")


def test_addresses_follow_the_ports_and_win_over_the_operator(environments):
    given = {**environments.operator, "OMOIOS_HTTP_PORT": "1", "OMOIOS_PUBLIC_URL": "http://elsewhere"}
    environments.operator = given
    environment = environments.service("workflow")
    assert environment["OMOIOS_HTTP_PORT"] == "21102"
    assert environment["OMOIOS_RPC_PORT"] == "21202"
    assert environment["OMOIOS_PUBLIC_URL"] == "http://127.0.0.1:21000"
    assert environment["OMOIOS_LOG_LEVEL"] == "DEBUG"
    password = environments.credentials.database("workflow")
    with open(environment["OMOIOS_DATABASE_URL_FILE"]) as file:
        assert file.read() == f"postgresql://workflow:{password}@127.0.0.1:18432/workflow"


def test_targets_of_several_instances_are_balanced(environments):
    environments.numbers = lambda name: [1, 2] if name == "vcs" else [1]
    targets = json.loads(environments.service("workflow")["OMOIOS_RPC_TARGETS"])
    assert targets["identity"] == "127.0.0.1:21201"
    assert targets["vcs"] == "ipv4:///127.0.0.1:21206,127.0.0.1:21216"


def test_settings_of_runners_and_of_the_stack_do_not_reach_services():
    given = {
        "OMOIOS_RUNNER_TOKEN": "t",
        "OMOIOS_STATE_DIR": "/srv",
        "OMOIOS_PORT_OFFSET": "7",
        "OMOIOS_CORS_ORIGINS": "[]",
        "AWS_SECRET_ACCESS_KEY": "k",
    }
    assert operator_settings(given) == {"OMOIOS_CORS_ORIGINS": "[]"}


def test_vcs_reads_this_clone_the_operators_folders_and_allowed_ones(environments, tmp_path):
    environments.operator = {"OMOIOS_REPOSITORY_ROOTS": '["/srv/git"]'}
    assert environments.state.allow_root(tmp_path / "projects")
    assert not environments.state.allow_root(tmp_path / "projects" / "one")
    roots = json.loads(environments.service("vcs")["OMOIOS_REPOSITORY_ROOTS"])
    clones = str(environments.state.repositories)
    assert roots == [str(tmp_path / "clone"), clones, "/srv/git", str(tmp_path / "projects")]
    assert "OMOIOS_REPOSITORY_ROOTS" not in Environments(
        environments.root, environments.state, environments.plan, environments.credentials
    ).service("workflow")


def test_one_of_several_instances_leaves_slowly_and_an_only_one_at_once(environments):
    delay = "OMOIOS_SHUTDOWN_DELAY_S"
    environments.numbers = lambda name: [1, 2] if name in ("workflow", "edge") else [1]
    assert [environments.service(name).get(delay) for name in ("workflow", "billing")] == ["2", None]
    assert environments.edge()[delay] == "2"
    environments.operator = {delay: "7"}
    assert {environments.service(name)[delay] for name in ("workflow", "billing")} == {"7"}


def test_keys_are_asked_of_every_instance_of_identity(environments):
    assert len(environments.service("vcs")["OMOIOS_JWKS_URL"].split()) == 1
    environments.numbers = lambda name: [1, 2] if name == "identity" else [1]
    urls = environments.service("vcs")["OMOIOS_JWKS_URL"].split()
    ports = [environments.plan.http("identity", number) for number in (1, 2)]
    assert urls == [f"http://127.0.0.1:{port}/.well-known/jwks.json" for port in ports]


def test_a_runner_gets_its_own_settings_and_no_secret_of_the_stack(environments):
    given = {"OMOIOS_RUNNER_TOKEN": "t", "OMOIOS_RUNNER_NAME": "demo", "OMOIOS_DATABASE_URL": "x"}
    environment = environments.runner(2, given)
    ours = {name: value for name, value in environment.items() if name.startswith("OMOIOS_")}
    assert ours == {
        "OMOIOS_RUNNER_TOKEN": "t",
        "OMOIOS_RUNNER_NAME": "demo-2",
        "OMOIOS_RUNNER_URL": "http://127.0.0.1:21000",
        "OMOIOS_RUNNER_WORKDIR": str(environments.state.directory / "runners" / "2"),
        "OMOIOS_RUNNER_HIDDEN": json.dumps([str(environments.state.directory)]),
    }
