"""The results page says the same for the same results, however long they took."""

from __future__ import annotations

from pathlib import Path

from tests.faults import report
from tests.faults.run import Case
from tests.faults.scenarios import SCENARIOS


def test_the_page_does_not_depend_on_timings() -> None:
    cases = [Case(scenario.name, f"a case of {scenario.name}") for scenario in SCENARIOS]
    slower = [Case(case.scenario, case.name, took_s=9.0, notes=["healthy after 8.9 s"]) for case in cases]
    assert report.render(cases) == report.render(slower)


def test_the_page_names_failures_and_what_was_left_out() -> None:
    name = SCENARIOS[0].name
    cases = [Case(name, "good"), Case(name, "bad", problems=["x"]), Case(name, "no tool", skipped="not installed")]
    page = report.render(cases)
    assert "1 of 3 cases passed; failed: bad; skipped: no tool" in page


def test_scenarios_are_named_once() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


def test_the_page_is_of_the_latest_run_of_each_scenario(tmp_path: Path) -> None:
    first, *others = SCENARIOS
    report.save(tmp_path, first.name, [Case(first.name, "good"), Case(first.name, "bad", ["x"])])
    report.write(tmp_path, page := tmp_path / "page.md")
    assert page.read_text().count("1 of 2 cases passed; failed: bad") == 1
    assert page.read_text().count("not run yet") == len(others)
    report.save(tmp_path, first.name, [Case(first.name, "good")])
    report.write(tmp_path, page)
    assert "1 of 1 cases passed" in page.read_text()
