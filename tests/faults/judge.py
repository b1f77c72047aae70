"""What requests under a fault must look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults.history import Request

TRACES = ("Traceback", 'File "/', "sqlalchemy", "asyncpg.", "grpc._")
UNAVAILABLE = (502, 503, 504)
LATE_SHARE = 0.05
# A sandbox's token dies with its attempt, so these may find it dead when their lease ran out meanwhile.
FENCED = ("sandbox.", "usage.", "task.complete")


def improper(requests: Iterable[Request], *, lost_allowed: bool = False) -> list[str]:
    """Failures that are not told as promised: 503 with Retry-After as a problem document, never a trace or a 500.

    `lost_allowed`: whether requests may stay without any answer (the gateway itself is gone, or a process is frozen).
    """
    found: Counter[str] = Counter()
    for item in requests:
        if item.status == 0:
            if not lost_allowed:
                found[f"{item.kind}: no answer ({item.body})"] += 1
        elif item.status >= 500:
            if item.status not in UNAVAILABLE:
                found[f"{item.kind}: {item.status} {item.body[:200]}"] += 1
            elif "json" not in item.content_type:
                found[f"{item.kind}: {item.status} as {item.content_type or 'nothing'}: {item.body[:80]!r}"] += 1
            elif item.status == 503 and not item.retry_after:
                found[f"{item.kind}: 503 without Retry-After: {item.body[:160]}"] += 1
        if any(trace in item.body for trace in TRACES):
            found[f"{item.kind}: shows its inside: {item.body[:200]}"] += 1
        if item.status == 401 and not item.kind.startswith(FENCED):
            found[f"{item.kind}: 401 for a valid token: {item.body[:160]}"] += 1
    return [f"{text} ({number}×)" for text, number in found.most_common(8)]


def failed(requests: Iterable[Request], kinds: Sequence[str], *, late_before: float = 0.0) -> list[str]:
    """Requests of these kinds that were not answered with a success or a refusal.

    A 504 tells of a deadline of two seconds that a busy machine passes by itself: it counts where it is no exception.
    `late_before`: the share of late answers while nothing was broken, of which three times as many are borne.
    """
    ours = [item for item in requests if item.kind in kinds]
    bad = [item for item in ours if item.status in (0, 429) or item.status >= 500]
    if late_share(ours) <= max(LATE_SHARE, 3 * late_before):
        bad = [item for item in bad if item.status != 504]
    found = Counter(f"{item.kind}: {item.status} {item.body[:160]}" for item in bad)
    return [f"{text} ({number}×)" for text, number in found.most_common(8)]


def late_share(requests: Iterable[Request]) -> float:
    """Share of the requests whose deadline was over before they were answered."""
    statuses = [item.status for item in requests]
    return statuses.count(504) / len(statuses) if statuses else 0.0


def back_at(requests: Sequence[Request], kind: str, since: float, in_a_row: int = 3) -> float | None:
    """When the first of so many successes in a row began, the last of them being the newest; None before that."""
    ours = sorted((item for item in requests if item.kind == kind and item.at >= since), key=lambda item: item.at)
    newest = ours[-in_a_row:]
    if len(newest) < in_a_row or any(not 200 <= item.status < 300 for item in newest):
        return None
    first = newest[0].at
    for item in reversed(ours[:-in_a_row]):
        if not 200 <= item.status < 300:
            break
        first = item.at
    return first
