"""A process whose clock is wrong goes by the database's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from servicekit import clock


@pytest.fixture(autouse=True)
def _uncorrected() -> Iterator[None]:
    yield
    now = time.time()
    clock.correct(now, now, now)


@pytest.mark.parametrize("seconds", [300.0, -300.0])
def test_it_goes_by_the_database(seconds: float) -> None:
    now = time.time()
    clock.correct(now, now + seconds, now)
    assert clock.correction_s() == pytest.approx(seconds)
    assert clock.wall_s() - time.time() == pytest.approx(seconds, abs=1)
    assert clock.utc_now().timestamp() - time.time() == pytest.approx(seconds, abs=1)


def test_what_the_way_to_the_database_hides_corrects_nothing() -> None:
    now = time.time()
    clock.correct(now, now + 0.05, now + 0.1)
    assert clock.correction_s() == 0.0


def test_a_slow_look_only_narrows_the_correction() -> None:
    now = time.time()
    clock.correct(now, now + 300, now)
    clock.correct(now, now + 305, now + 10)
    assert clock.correction_s() == pytest.approx(300)
    clock.correct(now, now + 320, now + 10)
    assert clock.correction_s() == pytest.approx(310)


def test_a_clock_that_steps_back_while_asking_is_not_believed() -> None:
    now = time.time()
    clock.correct(now, now + 300, now - 60)
    assert clock.correction_s() == 0.0
