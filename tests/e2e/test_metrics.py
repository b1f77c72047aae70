"""What `/metrics` of every process says after some work."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from omoios_local.ports import SERVICES
from tests.e2e.world import Tenant, World, eventually

PLAN = """# Counted

## Tasks

### A: Write a file
- Command: `echo a > a.txt`
"""

# Names as the parser gives them: a counter without its `_total`.
EVERYWHERE = {
    *("http_server_request_duration_seconds", "http_server_active_requests", "rpc_client_duration_seconds"),
    *("db_pool_size", "db_pool_in_use", "db_pool_open", "db_pool_waiting", "db_pool_wait_seconds"),
    *("outbox_pending", "outbox_oldest_seconds", "relay_leading", "relay_published"),
    *("events_consumed", "events_lag_seconds", "events_pending", "events_retried", "events_dead_letters"),
    *("job_runs", "job_duration_seconds"),
}
REQUESTS = "http_server_request_duration_seconds"
MOVED = {
    "identity": {"rpc_server_duration_seconds", "relay_published", "mails"},
    "workflow": {
        *("rpc_client_duration_seconds", "relay_published", "events_consumed", "events_lag_seconds"),
        *("workflow_executions", "workflow_tasks", "workflow_leases", "workflow_queue_wait_seconds"),
    },
    "agents": {"rpc_client_duration_seconds", "relay_published", "events_consumed"},
    "monitoring": {"events_consumed", "events_lag_seconds"},
    "billing": {"rpc_server_duration_seconds", "events_consumed", "billing_reservations"},
    "vcs": {"rpc_server_duration_seconds", "relay_published", "vcs_merge_duration_seconds"},
    "edge": set(),
}
SERIES = 150
"""Label sets of one family in one process; the most has `operation` with the operations that were called."""
SOMEBODY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{24}|@|\b\d{1,3}(?:\.\d{1,3}){3}\b|(?:org|repo)-[0-9a-f]{8}")


@pytest.fixture(scope="module")
def worked(world: World) -> Tenant:
    """A tenant for whom one task was done and merged."""
    tenant = world.tenant()
    world.runner(tenant)
    assert world.ended(tenant, world.execute(tenant, PLAN))["execution_status"] == "completed"
    # An answer that is no success is counted under its operation as well.
    assert tenant.owner.call("GET", "/projects/no-such-project").status_code == 404
    return tenant


def scrape(world: World, part: str) -> dict[str, Metric]:
    """Families by name."""
    answer = httpx2.get(f"http://127.0.0.1:{world.client.stack().plan.http(part)}/metrics", trust_env=False)
    assert answer.status_code == 200, answer.text
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: Mapping[str, Metric], name: str) -> float:
    """The sum over all label sets: of a histogram the number of observations."""
    family = families.get(name)
    if family is None:
        return 0.0
    return sum(one.value for one in family.samples if one.name in (name, f"{name}_total", f"{name}_count"))


def unmoved(families: Mapping[str, Metric], wanted: Iterable[str]) -> set[str]:
    return {name for name in wanted if value(families, name) <= 0}


@pytest.mark.parametrize("part", [*SERVICES, "edge"])
def test_every_process_measures_what_it_does(world: World, worked: Tenant, part: str) -> None:
    wanted = {REQUESTS, *MOVED[part]}
    if part in SERVICES:
        assert EVERYWHERE - set(scrape(world, part)) == set()
        wanted |= {"db_pool_open", "relay_leading", "job_runs"}
    eventually(lambda: not unmoved(scrape(world, part), wanted), f"of {part} every one of {sorted(wanted)} moves")


def test_nobody_reads_them_through_the_gateway(world: World) -> None:
    assert world.http.get("/metrics").status_code == 404


@pytest.mark.parametrize("part", [*SERVICES, "edge"])
def test_no_label_is_somebodys_and_their_number_is_bounded(world: World, worked: Tenant, part: str) -> None:
    own = {worked.organization_id, worked.project_id, worked.owner.user_id, worked.owner.email}
    for family in scrape(world, part).values():
        series: Counter[str] = Counter()
        for sample in family.samples:
            labels = {name: text for name, text in sample.labels.items() if name != "le"}
            for name, text in labels.items():
                assert not SOMEBODY.search(text), f"{sample.name}: {name}={text}"
                assert text not in own, f"{sample.name}: {name}={text}"
            series[sample.name] += sample.labels.get("le") in (None, "+Inf")
        assert all(count <= SERIES for count in series.values()), (family.name, series)
