"""Hours used in a month, and when the next one begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from identity_service.directory.rules import hours_used, resets_at

END = datetime(2026, 12, 1, tzinfo=UTC)


def test_the_month_that_runs_counts() -> None:
    now = END - timedelta(seconds=1)
    assert hours_used(5_400_000, END, now) == 1.5
    assert resets_at(END, now) == END


@pytest.mark.parametrize(
    ("now", "following"),
    [
        (END, datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2027, 2, 10, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)),
    ],
)
def test_one_that_is_over_does_not(now: datetime, following: datetime) -> None:
    assert hours_used(5_400_000, END, now) == 0.0
    assert resets_at(END, now) == following


def test_no_account_no_month() -> None:
    assert (hours_used(0, None, END), resets_at(None, END)) == (0.0, None)
