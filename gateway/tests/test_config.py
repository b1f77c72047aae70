"""The rendered configuration as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_edge.pending import Operation
from gateway_edge.routes import OWNERS, SERVICES, load
from gateway_edge.traefik_config import DEFAULT_PORTS, HEALTH_CHECK, Options, render


def rendered(directory: Path, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The static and the dynamic part."""
    static = render(DEFAULT_PORTS, directory, **{"not_built": [], "built": [], **arguments})
    dynamic = directory / "dynamic" / "gateway.yml"
    return yaml.safe_load(static.read_text()), yaml.safe_load(dynamic.read_text())["http"]


def test_every_rule_is_one_router_of_its_owner(tmp_path: Path) -> None:
    _, http = rendered(tmp_path)
    for rule in load().active("local"):
        assert http["routers"][rule.name]["service"] == rule.owner
    priorities = {rule.name: http["routers"][rule.name]["priority"] for rule in load().active("local")}
    ordered = sorted(load().active("local"), key=lambda rule: rule.rank)
    assert [priorities[rule.name] for rule in ordered] == sorted(priorities.values())


def test_production_has_no_debug_router(tmp_path: Path) -> None:
    _, local = rendered(tmp_path / "local")
    _, production = rendered(tmp_path / "production", environment="production")
    gone = set(local["routers"]) - set(production["routers"])
    assert gone == {rule.name for rule in load().rules if rule.name.startswith("debug-")}
    assert not any("debug" in router["rule"] for router in production["routers"].values())


def test_all_instances_are_servers_with_a_health_check(tmp_path: Path) -> None:
    _, http = rendered(tmp_path, instances={"workflow": [1001, "10.0.0.7:1002"]})
    balancer = http["services"]["workflow-instances"]["loadBalancer"]
    assert [server["url"] for server in balancer["servers"]] == ["http://127.0.0.1:1001", "http://10.0.0.7:1002"]
    for service in SERVICES:
        assert http["services"][f"{service}-instances"]["loadBalancer"]["healthCheck"]["path"] == "/readyz"
        assert http["services"][f"{service}-alive"]["loadBalancer"]["healthCheck"]["path"] == "/livez"
        assert http["services"][service]["failover"]["fallback"] == f"{service}-otherwise"
        assert http["services"][f"{service}-otherwise"]["failover"]["fallback"] == "edge"


def test_nothing_buffers_and_503_is_never_replaced(tmp_path: Path) -> None:
    _, http = rendered(tmp_path)
    buffering = {name for name, middleware in http["middlewares"].items() if "buffering" in middleware}
    assert {name for name, router in http["routers"].items() if buffering & set(router["middlewares"])} == {"too-large"}
    assert http["middlewares"]["error-pages"]["errors"]["status"] == ["502", "504"]
    for name, router in http["routers"].items():
        assert "remove-headers" in router["middlewares"] or router["entryPoints"] == ["limits"], name


def test_no_answer_of_the_gateway_itself_is_without_a_page(tmp_path: Path, operations: list[Operation]) -> None:
    _, http = rendered(tmp_path, not_built=operations)
    streams = {rule.name for rule in load().rules if rule.stream}
    for name, router in http["routers"].items():
        if name not in (*streams, "too-large") and "entryPoints" not in router:
            assert router["middlewares"][-2:] == ["error-pages", "retry"], name


def test_limits_follow_the_setting(tmp_path: Path) -> None:
    for profile, average in (("contract", 30), ("loose", 12_000)):
        _, http = rendered(tmp_path / profile, options=Options(rate_limits=profile))
        assert http["middlewares"]["bucket-auth-credentials"]["rateLimit"]["average"] == average
        assert "limit-auth-credentials" in http["routers"]["auth-auth-credentials"]["middlewares"]
        assert "limit-auth" in http["routers"]["auth"]["middlewares"]
        assert "limit-auth" not in http["routers"]["tasks"]["middlewares"]


def test_addresses_behind_a_proxy_come_from_its_header(tmp_path: Path) -> None:
    static, http = rendered(tmp_path, options=Options(trusted_proxies=("10.0.0.0/8",)))
    assert static["entryPoints"]["web"]["forwardedHeaders"] == {"insecure": False, "trustedIPs": ["10.0.0.0/8"]}
    strategy = http["middlewares"]["bucket-auth"]["rateLimit"]["sourceCriterion"]["ipStrategy"]
    assert strategy == {"ipv6Subnet": 64, "excludedIPs": ["10.0.0.0/8"]}


def test_listeners_are_on_loopback_unless_told(tmp_path: Path) -> None:
    static, _ = rendered(tmp_path, options=Options(metrics_port=18008))
    assert {name: entry["address"] for name, entry in static["entryPoints"].items()} == {
        "web": "127.0.0.1:18000",
        "metrics": "127.0.0.1:18008",
        "limits": "127.0.0.1:18009",
    }


def test_the_access_log_drops_what_is_not_named(tmp_path: Path) -> None:
    fields = rendered(tmp_path)[0]["accessLog"]["fields"]
    assert fields["defaultMode"] == "drop"
    assert fields["queryParameters"]["defaultMode"] == "drop"
    assert fields["headers"] == {"defaultMode": "drop", "names": {"X-Request-Id": "keep"}}
    assert "accessLog" not in rendered(tmp_path / "off", options=Options(access_log=""))[0]


def test_pending_operations_are_one_router_per_rule(tmp_path: Path, operations: list[Operation]) -> None:
    _, http = rendered(tmp_path, not_built=operations)
    routers = {name: router for name, router in http["routers"].items() if name.startswith("not-built-")}
    assert 30 < len(routers) < 60
    assert {router["service"] for router in routers.values()} == {"edge"}
    weakest = min(router["priority"] for router in routers.values())
    public = {name: router for name, router in http["routers"].items() if "entryPoints" not in router}
    assert all(router["priority"] < weakest for name, router in public.items() if name not in (*routers, "too-large"))


def test_unknown_or_missing_services_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such service: nobody"):
        rendered(tmp_path, instances={"nobody": [1]})
    with pytest.raises(ValueError, match="neither a port nor instances are given for vcs"):
        render(
            {"gateway": 1, "limits": 2, **{name: 2 for name in OWNERS if name != "vcs"}},
            tmp_path,
            not_built=[],
            built=[],
        )


def test_rendering_replaces_the_file_at_once(tmp_path: Path) -> None:
    rendered(tmp_path)
    before = (tmp_path / "dynamic" / "gateway.yml").stat().st_ino
    rendered(tmp_path)
    assert (tmp_path / "dynamic" / "gateway.yml").stat().st_ino != before
    assert [path.name for path in (tmp_path / "dynamic").iterdir()] == ["gateway.yml"]


@pytest.mark.parametrize("middleware", ["retry", "retry-unsent"])
def test_retries_go_on_until_a_killed_instance_has_left_the_rotation(tmp_path: Path, middleware: str) -> None:
    """Traefik's own rule: pauses grow by half up to twice the first, each varied by half."""
    retry = rendered(tmp_path)[1]["middlewares"][middleware]["retry"]
    first = float(retry["initialInterval"].removesuffix("ms")) / 1000
    pauses = [min(first * 1.5**number, 2 * first) for number in range(retry["attempts"] - 1)]
    assert sum(pauses) / 2 >= float(HEALTH_CHECK["interval"].removesuffix("s"))
