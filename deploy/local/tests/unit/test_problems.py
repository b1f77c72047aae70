"""What `make status` calls wrong, and what it says to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omoios_local import problems, screen
from omoios_local.ports import SERVICES
from omoios_local.problems import find

ROOT = Path(__file__).resolve().parents[4]
GB = 1000**3


def unit(part: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    return {"part": part, "instance": 1, "state": state, "detail": "", "pid": 7, **more}


def healthy() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    units = [unit(part) for part in ("postgres", "nats", "redis", *SERVICES, "edge", "gateway")]
    step = {"part": "topology", "instance": 1, "state": "done", "detail": ""}
    durable = {"stream": "BILLING", "durable": "workflow-engine-BILLING", "pending": 0, "unacknowledged": 0}
    figures = {
        "outbox": {name: {"pending": 3, "oldest_s": 0.2, "bytes": 1, "unread": []} for name in SERVICES},
        "consumers": [{**durable, "redelivered": 0, "idle_s": 900.0}],
        "dead_letters": 0,
        "volume": {"free_bytes": 80 * GB, "total_bytes": 250 * GB},
    }
    return [*units, step], figures


def test_a_healthy_stack_has_no_problem() -> None:
    assert find(*healthy()) == []
    assert screen.problems_text([]).plain == "nothing is wrong"


def test_a_killed_nats_explains_the_outboxes_behind_it() -> None:
    units, figures = healthy()
    units[1] = unit("nats", "backoff", detail="ended by SIGKILL; next start in 2 s", pid=None)
    figures["outbox"]["workflow"] = {"pending": 120, "oldest_s": 42.0, "bytes": 1}
    figures |= {"consumers": [], "dead_letters": None}
    nats, outbox = find(units, figures)
    assert (nats.part, nats.what) == ("nats", "keeps ending: ended by SIGKILL; next start in 2 s")
    assert "make logs part=nats" in nats.todo
    assert outbox.what == "120 events wait in the outbox, the oldest for 42 s"
    assert outbox.todo == "bring nats back"


def test_a_stopped_service_is_what_its_outbox_waits_for() -> None:
    units, figures = healthy()
    units[4] = unit("workflow", "stopped", pid=None)
    figures["outbox"]["workflow"] = {"pending": 1, "oldest_s": 11.0, "bytes": 1}
    stopped, outbox = find(units, figures)
    assert (stopped.part, stopped.what) == ("workflow", "is stopped")
    assert outbox.todo == "bring workflow back"


def test_a_consumer_that_acknowledges_nothing_is_stuck_and_a_busy_one_is_not() -> None:
    units, figures = healthy()
    row = figures["consumers"][0]
    row |= {"pending": 40, "unacknowledged": 2, "idle_s": 33.0}
    [stuck] = find(units, figures)
    assert stuck.part == "workflow"
    assert stuck.what == "workflow-engine-BILLING has acknowledged nothing for 33 s, 42 events wait"
    row["idle_s"] = 0.4
    assert find(units, figures) == []


def test_events_that_a_stream_dropped_unread_say_whom_to_bring_back() -> None:
    units, figures = healthy()
    row = {"durable": "monitoring-log-agents", "since_s": 5400, "may_be_lost": False}
    figures["outbox"]["agents"]["unread"] = [row]
    [found] = find(units, figures)
    assert (found.part, found.page) == ("monitoring", problems.UNREAD)
    assert found.what == (
        "the stream AGENTS dropped events of the last 1.5 h that monitoring-log-agents may not have handled"
    )
    assert found.todo == "wait: agents sends them to it again when it has caught up"
    units[6] = unit("monitoring", "stopped", pid=None)
    row["may_be_lost"] = True
    assert find(units, figures)[-1].todo == (
        "bring monitoring back, then `make rebuild service=monitoring`: the outbox does not reach back as far"
    )


@pytest.mark.parametrize(("count", "text"), [(1, "1 dead letter"), (7, "7 dead letters")])
def test_dead_letters_say_how_to_read_and_replay_them(count: int, text: str) -> None:
    units, figures = healthy()
    [found] = find(units, figures | {"dead_letters": count})
    assert found.what == text
    assert "make dlq-replay" in found.todo


@pytest.mark.parametrize(
    ("free", "total", "wrong"), [(1.5, 20, True), (3, 20, False), (9, 250, True), (20, 250, False)]
)
def test_a_disk_is_low_before_it_is_full(free: float, total: float, wrong: bool) -> None:
    units, figures = healthy()
    figures["volume"] = {"free_bytes": int(free * GB), "total_bytes": int(total * GB)}
    assert [problem.part for problem in find(units, figures)] == (["disk"] if wrong else [])


def test_a_database_that_answers_with_an_error_is_named_and_one_that_is_away_only_once() -> None:
    units, figures = healthy()
    figures["outbox"]["vcs"] = {"error": "FATAL: too many connections"}
    [found] = find(units, figures)
    assert (found.part, found.what) == ("vcs", "database: FATAL: too many connections")
    units[0] = unit("postgres", "backoff", detail="exit 1", pid=None)
    figures["outbox"] = {name: {"error": "connection refused"} for name in SERVICES}
    assert [problem.part for problem in find(units, figures)] == ["postgres"]


def test_a_suspended_part_a_failed_step_and_a_silent_jetstream_are_named() -> None:
    units, figures = healthy()
    units[5] = unit("agents", "suspended", instance=2, pid=4711)
    units[-1] = {"part": "migrate-vcs", "instance": 1, "state": "backoff", "detail": "two heads"}
    suspended, step, streams = find(units, figures | {"dead_letters": None})
    assert (suspended.part, suspended.todo) == ("agents #2", "`kill -CONT 4711` or `make restart part=agents`")
    assert step.what == "step backoff: two heads"
    assert streams.part == "nats"


def test_every_problem_is_one_line_and_its_page_exists() -> None:
    units, figures = healthy()
    figures["volume"]["free_bytes"] = 1
    found = find(units, figures | {"dead_letters": 2})
    assert len(screen.problems_text(found).plain.splitlines()) == len(found) == 2
    for page in (problems.OUTBOX, problems.UNREAD, problems.DEAD, problems.FULL_DISK):
        assert (ROOT / page).is_file()
