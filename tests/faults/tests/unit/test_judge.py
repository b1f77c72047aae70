"""What requests under a fault must look like."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import judge
from tests.faults.caller import Answer
from tests.faults.history import History, Request

GOOD = Request(1.0, 0.1, "projects", "probe.workflow", 503, True, "application/problem+json", '{"status":503}')


def test_a_proper_refusal_is_no_problem() -> None:
    assert judge.improper([GOOD, replace(GOOD, status=200)]) == []


def test_what_is_improper_is_named() -> None:
    bad = {
        "without Retry-After": replace(GOOD, retry_after=False),
        "500": replace(GOOD, status=500),
        "as text/plain": replace(GOOD, content_type="text/plain"),
        "shows its inside": replace(GOOD, body='Traceback (most recent call last): File "/x.py"'),
        "no answer": replace(GOOD, status=0, body="ReadTimeout"),
        "401": replace(GOOD, status=401),
    }
    for text, request in bad.items():
        assert any(text in problem for problem in judge.improper([request])), text
    assert judge.improper([bad["no answer"]], lost_allowed=True) == []


def test_only_the_kinds_asked_for_count_as_failed() -> None:
    assert judge.failed([GOOD], ["probe.vcs"]) == []
    assert len(judge.failed([GOOD, replace(GOOD, status=0)], ["probe.workflow"])) == 2
    assert judge.failed([replace(GOOD, status=409)], ["probe.workflow"]) == []


def test_a_late_answer_counts_where_it_is_no_exception() -> None:
    well = [replace(GOOD, status=200)] * 199
    late = replace(GOOD, status=504)
    assert judge.failed([*well, late], ["probe.workflow"]) == []
    assert judge.failed([*well[:9], late], ["probe.workflow"]) != []
    assert judge.failed([*well[:9], late], ["probe.workflow"], late_before=0.05) == []


def test_back_means_so_many_successes_in_a_row_up_to_now() -> None:
    well = [replace(GOOD, at=float(second), status=200) for second in range(3, 9)]
    assert judge.back_at([replace(GOOD, at=2.0), *well], "probe.workflow", 0.0) == 3.0
    assert judge.back_at([*well, replace(GOOD, at=9.0)], "probe.workflow", 0.0) is None
    assert judge.back_at(well[:2], "probe.workflow", 0.0) is None
    assert judge.back_at(well, "probe.workflow", 7.0) is None


def test_only_a_definite_no_is_a_refusal() -> None:
    assert Answer(404, {"code": "workflow.ticket_not_found"}).refused
    assert not Answer(409, {"code": "idempotency.in_flight"}).refused
    assert not Answer(429, {}).refused
    assert not Answer(503, {}).refused
    assert not Answer(0, None).refused


def test_an_open_operation_counts_as_unknown() -> None:
    history = History(1)
    history.begin("ticket.create", "alder", {})
    history.end(history.begin("ticket.create", "alder", {}), "ok", 200, {})
    assert history.counts() == {"ok": 1, "fail": 0, "info": 1}
    assert len({item.id for item in history.operations}) == 2
