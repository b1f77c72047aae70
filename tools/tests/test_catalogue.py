"""The event catalogue and the access check, each broken once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter

from servicekit.auth.access import PUBLIC, AccessTable
from servicekit.db.event_options import EventType
from servicekit.events import topology
from servicekit.host import Service
from servicekit.settings import ServiceSettings
from tools import catalogue
from tools.catalogue import Listener

CREATED = EventType("shop.order.created.v1", "order", True, "")
LISTENER = Listener("billing", "orders", ("shop.order.created.v1",))
ALL = Listener("monitoring", "all", ("shop.>",), ("shop.order.created.v1",))
RECORDER = Listener("monitoring", "log", ("shop.>",), ())


def findings(*events: EventType, heard_by: tuple[Listener, ...] = ()) -> list[str]:
    return list(catalogue.event_findings(events, heard_by))


def test_heard_event_passes() -> None:
    assert findings(CREATED, heard_by=(LISTENER,)) == []
    assert findings(CREATED, heard_by=(ALL,)) == []
    assert findings(replace(CREATED, audit_only="kept for auditors")) == []
    assert findings(replace(CREATED, audit_only="only monitoring records it"), heard_by=(RECORDER,)) == []


def test_unheard_event_is_found() -> None:
    assert "shop.order.created.v1: nothing consumes it" in findings(CREATED)[0]
    assert findings(CREATED, heard_by=(Listener("billing", "goods", ("shop.goods.>",)),)) != []
    # Whoever records everything makes nothing of it.
    assert "shop.order.created.v1: nothing consumes it" in findings(CREATED, heard_by=(RECORDER,))[0]


def test_a_planted_event_that_only_the_log_hears_fails_the_check(monkeypatch, capsys) -> None:
    assert catalogue.main(["events"]) == 0
    planted = EventType("identity.user.sneezed.v1", "user", False, "")
    monkeypatch.setattr(catalogue, "event_types", lambda known=tuple(catalogue.event_types()): [*known, planted])
    assert catalogue.main(["events"]) == 1
    assert "identity.user.sneezed.v1: nothing consumes it" in capsys.readouterr().err


def test_without_its_live_follower_an_event_is_unheard() -> None:
    services, _ = catalogue.describe()
    ready = [event for event in catalogue.event_types() if event.subject == "workflow.tasks.ready.v1"]
    durable = catalogue.listeners(services.values())
    assert "nothing consumes it" in next(catalogue.event_findings(ready, durable))
    found = catalogue.event_findings(ready, [*durable, *catalogue.followers(services.values())])
    assert [line for line in found if line.startswith("workflow.tasks.ready.v1")] == []


def test_outdated_reason_is_found() -> None:
    found = findings(replace(CREATED, audit_only="nobody needs it"), heard_by=(LISTENER,))
    assert found == ["shop.order.created.v1: audit_only says 'nobody needs it', but billing consumes it"]


def test_listener_to_nothing_is_found() -> None:
    found = findings(heard_by=(LISTENER,))
    assert found == ["billing/orders listens to shop.order.created.v1, which no proto declares"]


@pytest.mark.parametrize(
    "subject", ["shop.created.v1", "shop.order.created", "shop.order.Created.v1", "shop.order.created.v0"]
)
def test_odd_subject_is_found(subject: str) -> None:
    assert any("a subject is" in line for line in findings(replace(CREATED, subject=subject), heard_by=(ALL,)))


def test_map_names_listeners_and_reasons() -> None:
    lines = list(catalogue.event_map([CREATED, replace(CREATED, audit_only="why")], [LISTENER]))
    assert lines[0].endswith("→ billing/orders")
    assert lines[1].endswith("→ billing/orders, audit only: why")


def service(access: AccessTable, *consumers: str, rpcs: tuple[str, ...] = ()) -> Service:
    router = APIRouter(tags=["goods"])

    @router.get("/api/v1/goods")
    async def list_goods() -> dict[str, Any]:
        return {}

    return Service(
        name="shop",
        settings=ServiceSettings(env="test"),
        access=access,
        routers=[router],
        servicers=[SimpleNamespace(methods=lambda: list(rpcs))] if rpcs else [],
        consumers=[SimpleNamespace(name=name, sources={}) for name in consumers],
    )


def access_findings(access: AccessTable, *consumers: str, rpcs: tuple[str, ...] = ()) -> list[str]:
    return list(catalogue.access_findings({"shop": service(access, *consumers, rpcs=rpcs)}))


LISTED = {"goods.list_goods": PUBLIC}


def test_listed_operations_pass() -> None:
    table = AccessTable(
        operations=LISTED, rpcs={"GetGoods": frozenset({"billing"})}, consumers={"orders": "its own organization"}
    )
    assert access_findings(table, "orders", rpcs=("omoios.shop.v1.ShopService/GetGoods",)) == []


@pytest.mark.parametrize(
    ("table", "consumers", "rpcs", "finding"),
    [
        (AccessTable(), (), (), "operation goods.list_goods has no entry"),
        (AccessTable(operations={**LISTED, "goods.gone": PUBLIC}), (), (), "goods.gone, which nothing serves"),
        (AccessTable(operations=LISTED), (), ("omoios.shop.v1.ShopService/GetGoods",), "has no entry"),
        (AccessTable(operations=LISTED, rpcs={"Gone": frozenset({"vcs"})}), (), (), "Gone, which nothing serves"),
        (AccessTable(operations=LISTED), ("orders",), (), "consumer orders has no entry"),
        (AccessTable(operations=LISTED, consumers={"gone": "x"}), (), (), "lists consumer gone"),
    ],
)
def test_missing_and_extra_entries_are_found(
    table: AccessTable, consumers: tuple[str, ...], rpcs: tuple[str, ...], finding: str
) -> None:
    found = access_findings(table, *consumers, rpcs=rpcs)
    assert len(found) == 1
    assert finding in found[0]


def test_a_service_that_cannot_be_built_is_a_finding() -> None:
    services, found = catalogue.describe(["nothing"])
    assert services == {}
    assert found == ["nothing: nothing_service.main is not there"]


def test_a_topology_that_the_services_do_not_declare_is_found(tmp_path, capsys) -> None:
    changed = tmp_path / "topology.yaml"
    changed.write_text(topology.FILE.read_text(encoding="utf-8").replace("max_bytes: 2147483648", "max_bytes: 1", 1))
    assert topology.main(["check", "--file", str(topology.FILE)]) == 0
    assert topology.main(["check", "--file", str(changed)]) == 1
    assert "make topology" in capsys.readouterr().err
