"""Runs the benchmarks and prints a table; see README.md.

python -m bench                          everything, in less than five minutes on a quiet machine
python -m bench --only 'list,frames'     the named ones
python -m bench --record                 keep the figures in bench/baseline.json
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator

from bench import figures, flood, flows, http, standing
from bench.figures import Figure
from bench.stack import OFFSET, Stack
from omoios_local.client import StackClient

OPERATIONS = {
    "profile": "profile read",
    "list": "ticket list, 20 of 1,000",
    "board": "board view, 1,000 tickets",
    "login": "login",
    "single": "single event ingest",
    "batch": "batch ingest, 100 a request",
    "create": "ticket create",
}
Scenario = Callable[[Stack], Iterator[Figure]]
# In this order: the processes that were just started are looked at first; reads of 1,000 tickets come before creates.
SCENARIOS: dict[str, Scenario] = {
    "start": standing.cold_start,
    "idle": standing.idle,
    **{name: lambda stack, title=title: _operation(stack, title) for name, title in OPERATIONS.items()},  # type: ignore[misc]
    "connections": http.many_connections,
    "latency": http.latency,
    "flood": flood.flood,
    "flat": http.flat,
    "relay": flows.relay,
    "frames": flows.frames,
    "claims": flows.claims,
    "plan": flows.plan,
    "memory": standing.memory_after,
}


def _operation(stack: Stack, title: str) -> Iterator[Figure]:
    return http.measure(stack, [one for one in http.operations(stack) if one.name == title])


def run(chosen: list[str], keep: bool) -> tuple[list[Figure], list[str]]:
    """Measure with a stack of its own, which is gone afterwards; with `keep` it stays, and the next run finds it.

    Returns the figures, and what could not be measured and why.
    """
    stack = Stack(StackClient.here(int(os.environ.get("OMOIOS_PORT_OFFSET", OFFSET))))
    found: list[Figure] = []
    broken: list[str] = []
    try:
        if not stack.resume():
            say(f"starting a stack with port offset {stack.client.offset}")
            stack.up()
            say("filling it")
            stack.seed()
        for name in chosen:
            began = time.monotonic()
            try:
                found += SCENARIOS[name](stack)
            except RuntimeError as error:
                # The others are worth their time all the same.
                broken.append(f"{name}: {error}")
            say(f"{name}: {time.monotonic() - began:.0f} s")
    finally:
        if not keep:
            stack.down()
    return found, broken


def say(text: str) -> None:
    """Progress, beside the table on standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """0 when everything was measured and every asserted target reached, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--record", action="store_true", help="keep the figures as the baseline")
    parser.add_argument("--keep", action="store_true", help="leave the stack running for a look with a profiler")
    given = parser.parse_args()
    named = [name for name in given.only.replace(",", " ").split() if name]
    if unknown := set(named) - set(SCENARIOS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; one or more of {', '.join(SCENARIOS)}")
    began = time.monotonic()
    found, broken = run([name for name in SCENARIOS if name in named or not named], given.keep)
    print(figures.table(found, figures.read_baseline()))
    failed = [figure for figure in found if figure.failed]
    if given.record:
        figures.record(found)
    for line in broken:
        say(f"not measured: {line}")
    say(f"{len(found)} figures in {time.monotonic() - began:.0f} s, {len(failed)} asserted targets missed")
    return int(bool(failed or broken))


if __name__ == "__main__":
    raise SystemExit(main())
