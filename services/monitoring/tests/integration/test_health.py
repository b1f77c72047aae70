"""Silent agents and blocked tickets become anomalies and alerts, in whatever order and however often they are told."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from omoios.agents.events.v1 import events_pb2 as agents
from omoios.monitoring.events.v1 import events_pb2 as monitoring
from omoios.workflow.events.v1 import events_pb2 as workflow
from servicekit.ids import new_id
from servicekit.testing.problems import assert_problem

OPEN_ANOMALIES = "SELECT count(*) FROM monitor_anomalies WHERE resolved_at IS NULL"
OPEN_ALERTS = "SELECT count(*) FROM alerts WHERE resolved_at IS NULL"


async def went_stale(world: Any, agent_id: str, missed: int, version: int, **kw: Any) -> str:
    return await world.publish(
        agents.AgentWentStale(agent_id=agent_id, missed_heartbeats=missed), agent_id, version, **kw
    )


async def recovered(world: Any, agent_id: str, version: int, **kw: Any) -> str:
    return await world.publish(agents.AgentRecovered(agent_id=agent_id), agent_id, version, **kw)


async def test_a_silent_agent_becomes_an_anomaly_and_an_alert_until_it_is_heard(world: Any) -> None:
    async with world.stream(entity_types="anomaly,alert") as client:
        await went_stale(world, "agent-1", 1, 3)
        (detected,) = await client.reads(1)
        assert detected["event_type"] == "monitor.anomaly.detected"
        assert detected["payload"]["labels"] == {"agent_id": "agent-1"}
        (anomaly,) = (await world.get("/monitor/anomalies")).json()
        assert anomaly["anomaly_id"] == detected["entity_id"]
        assert anomaly["metric_name"] == "agent.heartbeat.missed"
        assert (anomaly["severity"], anomaly["observed_value"]) == ("warning", 1.0)
        assert anomaly["acknowledged_at"] is None
        # A heartbeat that is late warns of nothing else; the alerts begin where the agent fails.
        await world.eventually("SELECT count(*) FROM inbox WHERE consumer = 'monitoring-alerts-monitoring'", 1)
        assert (await world.get("/alerts")).json() == []

        await went_stale(world, "agent-1", 3, 4)
        worse, *triggered = await client.reads(3)
        assert worse["entity_id"] == anomaly["anomaly_id"]
        assert worse["payload"]["severity"] == "critical"
        values = {frame["payload"]["rule_id"]: frame["payload"]["value"] for frame in triggered}
        assert values == {"agent_heartbeat_missed": 3.0, "agent_unresponsive": 1.0}
        alerts = sorted((await world.get("/alerts")).json(), key=lambda alert: alert["rule_id"])
        assert [alert["rule_id"] for alert in alerts] == ["agent_heartbeat_missed", "agent_unresponsive"]
        assert alerts[0]["threshold"] == 2.0
        assert alerts[0]["labels"] == {"agent_id": "agent-1"}
        assert (await world.get("/monitor/dashboard")).json()["stale_agents"] == 1

        await recovered(world, "agent-1", 5)
        ended = await client.reads(3)
        assert [frame["event_type"] for frame in ended].count("alert.resolved") == 2
        assert (await world.get("/alerts")).json() == []
        assert (await world.get("/monitor/dashboard")).json()["stale_agents"] == 0
    assert len((await world.get("/monitor/anomalies?severity=critical")).json()) == 1
    over = (await world.get(f"/alerts/{alerts[0]['id']}")).json()
    assert (over["resolved_by"], over["resolution_note"]) == ("system", "The anomaly is over.")


# The second silence begins at the version of the return: an agent whose status stayed keeps its version then.
STORY = (("stale", 5, 2), ("stale", 6, 3), ("heard", 7, 0), ("stale", 7, 3), ("heard", 8, 0))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 3, 1), (3, 2, 1, 0, 4)])
async def test_the_order_of_arrival_does_not_matter(world: Any, order: tuple[int, ...]) -> None:
    for index in order:
        kind, version, missed = STORY[index]
        event_id = new_id()
        for _ in range(2):
            if kind == "stale":
                await went_stale(world, "agent-1", missed, version, event_id=event_id)
            else:
                await recovered(world, "agent-1", version, event_id=event_id)
    await world.eventually("SELECT count(*) FROM inbox WHERE consumer = 'monitoring-anomalies-agents'", len(STORY))
    await world.eventually(OPEN_ANOMALIES, 0)
    await world.eventually(
        "SELECT count(*) FROM outbox o WHERE NOT EXISTS (SELECT 1 FROM inbox i WHERE i.event_id = o.event_id "
        "AND i.consumer = 'monitoring-alerts-monitoring') AND subject LIKE 'monitoring.anomaly.%'",
        0,
    )
    await world.eventually(OPEN_ALERTS, 0)
    rows = await world.rows("SELECT is_stale, health_order FROM replica_agents")
    assert [tuple(row) for row in rows] == [(False, 16)]


async def test_an_agent_that_was_ended_is_not_missing(world: Any) -> None:
    await went_stale(world, "agent-1", 3, 3)
    await world.eventually(OPEN_ALERTS, 2)
    await world.publish(agents.AgentUpdated(agent_id="agent-1", status="TERMINATED"), "agent-1", 4)
    await world.eventually(OPEN_ALERTS, 0)
    await world.eventually(OPEN_ANOMALIES, 0)
    await went_stale(world, "agent-1", 3, 3)
    await world.publish(agents.AgentRegistered(agent_id="agent-2", status="IDLE"), "agent-2", 1)
    await world.eventually("SELECT count(*) FROM replica_agents", 2)
    assert (await world.rows(OPEN_ANOMALIES))[0][0] == 0


async def test_a_resolution_that_comes_late_leaves_the_next_episode_alone(world: Any) -> None:
    """The end of the first episode is delivered again after the second has begun."""
    await went_stale(world, "agent-1", 3, 1)
    await world.eventually(OPEN_ALERTS, 2)
    await recovered(world, "agent-1", 2)
    await world.eventually(OPEN_ALERTS, 0)
    await went_stale(world, "agent-1", 3, 2)
    await world.eventually(OPEN_ALERTS, 2)
    (first,) = await world.rows("SELECT id FROM monitor_anomalies WHERE resolved_at IS NOT NULL")
    late = monitoring.AnomalyResolved(
        anomaly_id=first[0], subject_type="agent", subject_id="agent-1", metric_name="agent.heartbeat.missed"
    )
    await world.publish(late, first[0], 9)
    again = monitoring.AnomalyDetected(anomaly_id=first[0], metric_name="agent.heartbeat.missed", observed_value=9)
    await world.publish(again, first[0], 8)
    await world.eventually(
        "SELECT count(*) FROM inbox WHERE consumer = 'monitoring-alerts-monitoring'",
        5,
    )
    rows = await world.rows("SELECT current_value FROM alerts WHERE resolved_at IS NULL ORDER BY 1")
    assert [row[0] for row in rows] == [1.0, 3.0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
async def test_a_blocked_ticket_alerts_by_its_priority(world: Any, order: tuple[int, ...]) -> None:
    told = [
        workflow.TicketCreated(ticket_id="t", project_id="p", title="Pay", priority="LOW"),
        workflow.TicketBlocked(ticket_id="t", project_id="p", blocker_type="waiting_on_clarification"),
        workflow.TicketUnblocked(ticket_id="t", project_id="p"),
        workflow.TicketBlocked(ticket_id="t", project_id="p", blocker_type="dependency"),
    ]
    for index in order:
        await world.publish(told[index], "t", index + 1)
    await world.eventually("SELECT count(*) FROM inbox WHERE consumer = 'monitoring-alerts-workflow'", 4)
    alerts = (await world.get("/alerts")).json()
    assert [(alert["rule_id"], alert["severity"]) for alert in alerts] == [("ticket_blocked", "warning")]
    assert "dependency" in alerts[0]["message"]
    assert alerts[0]["labels"] == {"ticket_id": "t", "project_id": "p"}
    await world.publish(workflow.TicketUpdated(ticket_id="t", changes_json='{"priority": "CRITICAL"}'), "t", 5)
    await world.publish(workflow.TicketBlocked(ticket_id="t", project_id="p"), "t", 6)
    await world.eventually(OPEN_ALERTS, 2)
    assert (await world.get("/monitor/dashboard")).json()["critical_alerts"] == 1
    await world.publish(workflow.TicketUnblocked(ticket_id="t", project_id="p"), "t", 7)
    await world.eventually(OPEN_ALERTS, 0)


async def test_people_acknowledge_and_resolve_alerts(world: Any) -> None:
    await went_stale(world, "agent-1", 3, 1)
    await world.eventually(OPEN_ALERTS, 2)
    (alert,) = (await world.get("/alerts?severity=error&active=true")).json()
    path = f"/alerts/{alert['id']}"
    assert (await world.get("/alerts?severity=info")).json() == []
    seen = await world.post(f"{path}/acknowledge", {"acknowledged_by": "me"})
    assert seen.status_code == 200, seen.text
    assert seen.json()["acknowledged_by"] == "user-1"
    again = await world.post(f"{path}/acknowledge", {"acknowledged_by": "another"})
    assert again.json()["acknowledged_at"] == seen.json()["acknowledged_at"]
    ended = await world.post(f"{path}/resolve", {"resolved_by": "me", "note": "restarted"})
    assert (ended.json()["resolved_by"], ended.json()["resolution_note"]) == ("user-1", "restarted")
    twice = await world.post(f"{path}/resolve", {"resolved_by": "me", "note": "other"})
    assert twice.json() == ended.json()
    late = await world.post(f"{path}/acknowledge", {"acknowledged_by": "me"})
    assert_problem(late, 409, "monitoring.alert_resolved")
    assert (await world.get("/alerts?severity=error")).json() == []
    assert (await world.get(path)).json() == ended.json()
    subjects = [row[0] for row in await world.rows("SELECT subject FROM outbox ORDER BY seq")]
    assert subjects.count("monitoring.alert.acknowledged.v1") == 1
    assert subjects.count("monitoring.alert.resolved.v1") == 1
    # The agent is silent still: the next missed heartbeat makes a new alert.
    await went_stale(world, "agent-1", 4, 2)
    await world.eventually(OPEN_ALERTS, 2)


async def test_people_acknowledge_anomalies(world: Any) -> None:
    await went_stale(world, "agent-1", 1, 1)
    await world.eventually(OPEN_ANOMALIES, 1)
    (anomaly,) = (await world.get("/monitor/anomalies")).json()
    path = f"/monitor/anomalies/{anomaly['anomaly_id']}/acknowledge"
    done = await world.post(path)
    assert done.json() == {"success": True, "anomaly_id": anomaly["anomaly_id"]}
    first = (await world.get("/monitor/anomalies")).json()[0]["acknowledged_at"]
    await world.post(path)
    assert first is not None
    assert (await world.get("/monitor/anomalies")).json()[0]["acknowledged_at"] == first
    assert_problem(await world.post("/monitor/anomalies/none/acknowledge"), 404, "monitoring.anomaly_not_found")


async def test_the_end_of_a_ticket_alert_belongs_to_its_project_like_its_beginning(world: Any) -> None:
    async with world.stream(entity_types="alert", entity_ids="p") as client:
        await world.publish(workflow.TicketBlocked(ticket_id="t", project_id="p", blocker_type="dependency"), "t", 1)
        (begun,) = await client.reads(1)
        assert begun["event_type"] == "alert.triggered"
        await world.post(f"/alerts/{begun['entity_id']}/acknowledge", {"acknowledged_by": "me"})
        await world.publish(workflow.TicketUnblocked(ticket_id="t", project_id="p"), "t", 2)
        assert [frame["event_type"] for frame in await client.reads(2)] == ["alert.acknowledged", "alert.resolved"]


async def test_rules_come_with_the_service(world: Any) -> None:
    rules = (await world.get("/alerts/rules", world.viewer)).json()
    assert len(rules) == 7
    assert {"agent_heartbeat_missed", "agent_unresponsive", "ticket_blocked"} <= {rule["rule_id"] for rule in rules}
    assert rules[0] == {
        "rule_id": "agent_anomaly_high",
        "name": "agent_anomaly_high",
        "metric_name": "agent.anomaly_score",
        "condition": "value >= 0.8",
        "severity": "critical",
        "routing": ["slack", "webhook"],
        "enabled": True,
    }


async def test_who_may_what(world: Any) -> None:
    await went_stale(world, "agent-1", 3, 1)
    await world.eventually(OPEN_ALERTS, 2)
    alert = (await world.get("/alerts")).json()[0]
    (anomaly,) = (await world.get("/monitor/anomalies")).json()
    acknowledge = f"/alerts/{alert['id']}/acknowledge"
    seen = f"/monitor/anomalies/{anomaly['anomaly_id']}/acknowledge"
    for path in ("/monitor/dashboard", "/monitor/metrics", "/monitor/anomalies", "/alerts", "/alerts/rules"):
        assert_problem(await world.http.get(f"/api/v1{path}"), 401, "auth.unauthenticated")
        assert (await world.get(path, world.viewer)).status_code == 200
    assert (await world.get("/alerts", world.stranger)).json() == []
    assert (await world.get("/monitor/anomalies", world.stranger)).json() == []
    assert (await world.get("/monitor/dashboard", world.stranger)).json()["stale_agents"] == 0
    assert_problem(await world.get(f"/alerts/{alert['id']}", world.stranger), 404, "monitoring.alert_not_found")
    for token, status, alert_code, anomaly_code in (
        (world.stranger, 404, "monitoring.alert_not_found", "monitoring.anomaly_not_found"),
        (world.viewer, 403, "auth.forbidden", "auth.forbidden"),
    ):
        assert_problem(await world.post(acknowledge, {"acknowledged_by": "x"}, token), status, alert_code)
        resolve = f"/alerts/{alert['id']}/resolve"
        assert_problem(await world.post(resolve, {"resolved_by": "x"}, token), status, alert_code)
        assert_problem(await world.post(seen, None, token), status, anomaly_code)
    assert_problem(await world.get("/alerts/not-a-uuid"), 422, "request.invalid")
    assert_problem(await world.post(acknowledge, {}), 422, "request.invalid")
    assert_problem(await world.get("/alerts?severity=bad"), 422, "request.invalid")
    assert_problem(await world.get("/monitor/anomalies?hours=0"), 422, "request.invalid")
    sandbox = world.signing.sandbox("org-1", "s", task_id="t", agent_id="a")
    assert_problem(await world.get("/monitor/dashboard", sandbox), 403, "auth.forbidden")
