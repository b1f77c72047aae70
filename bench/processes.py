"""What processes use: processor time, memory, and how much of the machine was ours."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor seconds of all threads of a process, user and system."""
    total = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((thread / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    if total:
        return total / 1e9
    # A kernel without scheduler statistics counts in ticks of 10 ms.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_mb(pid: int) -> float:
    """Memory of a process in megabytes (10^6 bytes), shared pages counted by their share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/smaps_rollup names no Pss")


def open_files(pid: int) -> int:
    """File descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@dataclass(frozen=True)
class Look:
    """Processor seconds at one moment: of each watched process, of the machine, and of all that belongs to us."""

    at: float
    each: dict[str, float]
    machine: float
    ours: float


class Watch:
    """Looks at processes by name; `roots` are the processes whose descendants are ours, with this one."""

    def __init__(self, pids: dict[str, int], roots: list[int]) -> None:
        self._pids = pids
        self._roots = [*roots, os.getpid()]

    def look(self) -> Look:
        """The figures of now; those of a part with child processes, such as PostgreSQL, with theirs."""
        each = {name: sum(map(cpu_s, _with_children(pid))) for name, pid in self._pids.items()}
        return Look(time.monotonic(), each, _machine_s(), sum(cpu_s(pid) for pid in self._family()))

    def _family(self) -> set[int]:
        family: set[int] = set()
        for root in self._roots:
            family |= _with_children(root)
        return family


def _with_children(pid: int) -> set[int]:
    with contextlib.suppress(psutil.Error):
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    return {pid}


def alone(rate: float, ours: float, cpu_us: Iterable[float]) -> float:
    """What a rate per second would be without the others, who left the share `ours` of the machine to us.

    No process does more than its one thread can: `cpu_us` are the microseconds that each spends on one item. On a quiet
    machine this is the rate itself.
    """
    ceiling = 1e6 / max(cpu_us)
    return max(rate, min(rate / ours, ceiling))


def _machine_s() -> float:
    """Processor seconds that the machine was busy with anything."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + times.irq + times.softirq + getattr(times, "steal", 0.0))


def used(before: Look, after: Look) -> dict[str, float]:
    """Processor seconds of each watched process between two looks."""
    return {name: after.each[name] - before.each[name] for name in before.each}


def share(before: Look, after: Look) -> float:
    """The part of the machine that was not taken by others between two looks, 1.0 on a quiet machine."""
    capacity = (after.at - before.at) * (os.cpu_count() or 1)
    others = (after.machine - before.machine) - (after.ours - before.ours)
    return min(1.0, max(0.05, 1.0 - others / capacity))
