"""`python -m tests.faults [--only NAME] [--long] [--whole] [--seed N] [--report]`: the scenarios on a stack of its own.

The last line is the sum of the cases: `N passed, N failed` (and skipped, where there are any).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import time

from omoios_local.embedded.process import scratch_directory
from omoios_local.state import repository_root
from tests.faults import report
from tests.faults.load import Load
from tests.faults.run import SHORT_RUN_S, Run
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stack import FaultStack

OUT = repository_root() / "build" / "faults"


def main(arguments: list[str] | None = None) -> int:
    """0 when every case passed, 1 when one failed, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=main.__doc__)
    parser.add_argument("--only", default="", help="names of scenarios, separated by commas")
    parser.add_argument("--long", action="store_true", help="every fault 20 times")
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of a run")
    parser.add_argument("--whole", action="store_true", help="leave nothing out, however long it takes")
    parser.add_argument("--report", action="store_true", help="write docs/reliability.md from the latest run of each")
    given = parser.parse_args(arguments)
    names = [name for name in given.only.split(",") if name]
    known = [scenario.name for scenario in SCENARIOS]
    if unknown := sorted(set(names) - set(known)):
        print(f"no such scenario: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    seed = secrets.randbelow(1 << 24) if given.seed is None else given.seed
    # A shell that works on another stack must not lend this one its place.
    for name in [name for name in os.environ if name.startswith("OMOIOS_")]:
        del os.environ[name]
    # A run that is told to end takes its stack down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run = play(chosen, seed, long=given.long, limited=not (given.long or given.whole or given.report))
    if given.report:
        report.write(OUT)
    failed = sum(bool(case.problems) for case in run.cases)
    skipped = sum(bool(case.skipped) for case in run.cases)
    passed = len(run.cases) - failed - skipped
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed else 0


def play(chosen: list[Scenario], seed: int, *, long: bool, limited: bool) -> Run:
    """Try the scenarios one after the other under one load; the stack is gone afterwards."""
    began = time.monotonic()
    print(f"seed {seed} (repeat with seed={seed}); scenarios: {', '.join(item.name for item in chosen)}", flush=True)
    with scratch_directory("omoios-faults-") as directory:
        stack = FaultStack(directory)
        load: Load | None = None
        run: Run | None = None
        try:
            stack.start()
            print(f"the stack is up after {time.monotonic() - began:.0f} s, gateway {stack.url}", flush=True)
            load = Load(stack.url, seed)
            load.start()
            run = Run(stack, load, seed, long, OUT)
            for scenario in chosen:
                run.scenario = scenario.name
                if limited and time.monotonic() - began > SHORT_RUN_S:
                    run.skip(scenario.name, f"{SHORT_RUN_S:g} s are over on this machine; try only={scenario.name}")
                    continue
                print(f"== {scenario.name} (at {time.monotonic() - began:.0f} s)", flush=True)
                with run.case(f"{scenario.name} begins and ends on a healthy stack"):
                    run.healthy(within_s=60)
                    scenario.play(run)
                run.verify()
                report.save(OUT, scenario.name, [case for case in run.cases if case.scenario == scenario.name])
            counts = load.history.counts()
            print(
                f"== {sum(counts.values())} operations ({counts['ok']} acknowledged, {counts['fail']} refused, "
                f"{counts['info']} unknown), {len(load.history.requests)} requests, {len(load.history.frames)} frames "
                f"in {time.monotonic() - began:.0f} s, seed {seed}",
                flush=True,
            )
            return run
        finally:
            # Whoever interrupts twice must not leave a stack behind.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            if load is not None:
                with contextlib.suppress(Exception):
                    load.stop()
            if stack.client.state.exists():
                stack.keep_logs(OUT / "logs")
            with contextlib.suppress(Exception):
                stack.end()


if __name__ == "__main__":
    sys.exit(main())
