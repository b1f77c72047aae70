"""Alerts and scrape targets name metrics, labels, ports and pages that exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.dockerfiles import IMAGES

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "observability"
ALERTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
JOBS = {job["job_name"]: job for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "grafana" / "omoios.json").read_text())["panels"]
PARTS = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

# Words of the query language and labels that Prometheus itself adds.
WORDS = {"sum", "max", "by", "rate", "increase", "histogram_quantile"}
OWN_LABELS = {"job", "exported_job", "instance", "le"}
METRIC = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+|\bup\b")


def measured() -> dict[str, set[str]]:
    """Metric → labels, of every counter, gauge and histogram that our code declares with literals."""
    found: dict[str, set[str]] = {"up": set()}
    for folder in ("libs", "services"):
        for path in (ROOT / folder).glob("*/src/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                values: list[ast.expr] = []
                if isinstance(node, ast.Call):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                    values = node.args if name in ("counter", "gauge", "histogram") else []
                elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_DURATION":
                    values = node.value.elts if isinstance(node.value, ast.Tuple) else []
                if values and isinstance(values[0], ast.Constant):
                    labels = set(ast.literal_eval(values[2])) if len(values) > 2 else set()
                    found[str(values[0].value)] = labels
    return found


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    return measured()


def check_names(expression: str, metrics: dict[str, set[str]]) -> None:
    """Each metric of an expression exists, and has the labels that the expression uses."""
    labels = set(re.findall(r"(\w+)=~?\"", expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",")}
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)|\[\w+\]", "", expression)
    names = {name for name in METRIC.findall(bare) if name not in WORDS}
    assert names
    for name in names:
        base = name if name in metrics else re.sub(r"_(?:bucket|count|sum)$", "", name)
        assert base in metrics, name
        assert labels <= metrics[base] | OWN_LABELS, f"{name}: {labels - metrics[base]}"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_names_what_exists(panel: dict[str, Any], metrics: dict[str, set[str]]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        check_names(target["expr"], metrics)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_names_what_exists(alert: dict[str, Any], metrics: dict[str, set[str]]) -> None:
    check_names(alert["expr"], metrics)
    assert (ROOT / alert["annotations"]["runbook"]).is_file()
    assert alert["labels"]["severity"] in ("page", "ticket")


def test_no_metric_has_a_label_for_a_tenant_or_an_id(metrics: dict[str, set[str]]) -> None:
    assert len(metrics) > 20
    for name, labels in metrics.items():
        for label in labels:
            assert not re.search(r"(^|_)id$|organization|tenant|user|email|project|task|spec|ticket", label), name


def test_every_process_of_the_container_path_is_scraped() -> None:
    found = {
        (name, where["port"]) for job in JOBS.values() for where in job["dns_sd_configs"] for name in where["names"]
    }
    wanted = {(image.name, image.ports[0]) for image in IMAGES}
    wanted |= {(name, 18009) for name in PARTS if name.endswith("-worker")} | {("gateway", 18008)}
    assert found == wanted
